"""Output of Nsight Compute becomes shares; its errors become one sentence."""

from __future__ import annotations

import pytest

from profiler.nsight import Counted, Kernel, NoCountersError, NsightError, NsightFeatures, count, counted, read_kernels

HEADER = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device",'
    '"CC","dram__throughput.avg.pct_of_peak_sustained_elapsed","gpu__time_duration.sum",'
    '"lts__throughput.avg.pct_of_peak_sustained_elapsed","sm__throughput.avg.pct_of_peak_sustained_elapsed"'
)
UNITS = '"","","","","","","","","","","","%","ns","%","%"'
GEMM = (
    '"0","4711","python3.11","127.0.0.1","sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x16_stage4_cublas",'
    '"1","13","(128, 1, 1)","(8, 6, 1)","0","8.0","20.5","1,312,000","30","82.25"'
)
COPY = (
    '"1","4711","python3.11","127.0.0.1","void cask::copy<float, (bool)0>(const T1 *, T1 *, ""x"", int)",'
    '"1","13","(256, 1, 1)","(49, 4, 1)","0","8.0","90.00","328,000","60","2.25"'
)
LOG = f"""==PROF== Connected to process 4711 (/usr/bin/python3.11)
==PROF== Profiling "sm80_xmma_gemm_f32f32_tf32f32..." - 0: 0%....50%....100% - 9 passes
==PROF== Profiling "copy" - 1: 0%....50%....100% - 9 passes
==PROF== Disconnected from process 4711
{HEADER}
{UNITS}
{GEMM}
{COPY}
"""


def test_a_log_has_a_line_per_kernel() -> None:
    assert read_kernels(LOG) == [
        Kernel(1_312_000.0, (0.8225, 0.3, 0.205)),
        Kernel(328_000.0, (0.0225, 0.6, 0.9)),
    ]


def test_long_kernels_weigh_more() -> None:
    """The copy runs for a fifth of the time."""
    assert counted(read_kernels(LOG)) == pytest.approx((0.8 * 0.8225 + 0.2 * 0.0225, 0.36, 0.344, 820_000))
    load = NsightFeatures({4: counted(read_kernels(LOG))}).load(4, 7_000)
    assert (load.solo_ns, load.kernel_ns) == (7_000, 820_000)
    assert load.l2 == pytest.approx(0.36)


@pytest.mark.parametrize(("unit", "factor"), [("nsecond", 1), ("us", 1e3), ("usecond", 1e3), ("msecond", 1e6)])
def test_times_in_the_units_of_older_releases(unit: str, factor: float) -> None:
    kernels = read_kernels(LOG.replace('"ns"', f'"{unit}"'))
    assert [kernel.duration_ns for kernel in kernels] == [1_312_000 * factor, 328_000 * factor]


def test_a_share_of_a_little_more_than_the_peak_is_the_peak() -> None:
    assert counted([Kernel(1.0, (1.002, 0.5, 0.0))]) == Counted(1.0, 0.5, 0.0, 1)


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("", "`ncu` saw no kernel of the batch"),
        ("==PROF== Connected to process 1\n==WARNING== No kernels were profiled.\n", "`ncu` saw no kernel of the"),
        (f"{HEADER}\n{UNITS}\n", "`ncu` saw no kernel of the batch"),
        (
            LOG.replace("lts__", "l2s__"),
            "`ncu` does not give lts__throughput.avg.pct_of_peak_sustained_elapsed of",
        ),
        (LOG.replace('"ns"', '"cycle"'), "`ncu` gives gpu__time_duration.sum in 'cycle', which is no unit of time"),
        (
            LOG.replace('"82.25"', '"n/a"'),
            "`ncu` gives 'n/a' as sm__throughput.avg.pct_of_peak_sustained_elapsed of k",
        ),
        (LOG.replace('"82.25"', '"nan"'), "`ncu` gives 'nan' as sm__"),
        (LOG.replace('"1,312,000"', '"-1"'), "`ncu` gives '-1' as gpu__time_duration.sum of kernel 'sm80_xmma_gemm"),
    ],
)
def test_an_unusable_log_is_one_sentence(log: str, says: str) -> None:
    with pytest.raises(NsightError) as refused:
        counted(read_kernels(log))
    assert str(refused.value).startswith(says)


def test_without_ncu_there_are_no_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoCountersError, match=r"^there is no `ncu`, which comes with .*Nsight Compute, on PATH$"):
        count("nothing", ())
