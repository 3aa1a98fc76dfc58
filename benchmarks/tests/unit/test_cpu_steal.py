"""Which spans the host of a virtual machine disturbed, and what is made of it."""

from __future__ import annotations

import time
from operator import itemgetter
from pathlib import Path

import pytest

from benchmarks.harness import cpu_steal as steal
from benchmarks.harness.cpu_steal import CpuSteal, CpuStealWatch, least_disturbed

SEEN = CpuSteal(0, 1_000, 0.1, at_ns=[120, 140, 500], since_ns=[100, 120, 480])
"""The host took CPU somewhere in 100..140 and in 480..500."""


@pytest.mark.parametrize(
    ("span", "disturbed"),
    [
        ((0, 90), False),
        ((0, 110), True),
        ((110, 115), True),
        ((130, 400), True),
        ((150, 400), False),
        ((490, 900), True),
    ],
)
def test_a_span_is_disturbed_where_it_meets_one(span: tuple[int, int], disturbed: bool) -> None:
    assert SEEN.disturbed(*span) is disturbed


def test_a_stall_counts_as_taken() -> None:
    """200 ms in which no look was taken, of a second in which the kernel counted a tenth."""
    second = 1_000_000_000
    assert CpuSteal(0, second, 0.1, at_ns=[500_000_000], since_ns=[300_000_000]).lost == pytest.approx(0.3)
    assert CpuSteal(0, second, 0.1, at_ns=[320_000_000], since_ns=[300_000_000]).lost == pytest.approx(0.1)


def stat(ticks: int) -> str:
    line = f"cpu  9 9 9 9 9 9 9 {ticks} 0 0\n"
    return line + line.replace("cpu ", "cpu0") * 2 + "intr 1\n"


def test_it_sees_the_ticks_that_the_kernel_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stat"
    file.write_text(stat(7))
    monkeypatch.setattr(steal, "_STAT", file)
    monkeypatch.setattr(steal, "_LATE_NS", 10**12)
    with CpuStealWatch() as watch:
        begun_ns = time.monotonic_ns()
        other = tmp_path / "other"
        other.write_text(stat(17))
        other.replace(file)
        deadline = time.monotonic() + 10.0
        while not watch.found.at_ns and time.monotonic() < deadline:
            time.sleep(0.005)
    found = watch.found
    assert found.disturbed(begun_ns, time.monotonic_ns())
    assert len(found.at_ns) == 1
    expected = 10 * 10_000_000 / (2 * (found.ended_ns - found.begun_ns))
    assert found.share == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("lost", "attempts", "kept", "asked"),
    [([0.01, 0.0], 3, 0.01, 1), ([0.2, 0.02], 3, 0.02, 2), ([0.2, 0.1, 0.3, 0.0], 3, 0.1, 3), ([0.5, 0.0], 1, 0.5, 1)],
)
def test_what_the_host_disturbs_is_taken_again(lost: list[float], attempts: int, kept: float, asked: int) -> None:
    left = [{"lost": share} for share in lost]
    best = least_disturbed(lambda: left.pop(0), itemgetter("lost"), 0.03, attempts)
    assert best == {"lost": kept}
    assert len(lost) - len(left) == asked
