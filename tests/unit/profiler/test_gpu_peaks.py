"""A GPU's peaks from its attributes, held against NVIDIA's data sheets, and features as shares of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cuda.bindings import runtime

from backend.device.cuda import hardware
from backend.device.facts import device_peaks
from backend.errors import ConfigError
from profiler.gpu_peaks import Hardware, gpu_peaks
from profiler.peaks import PeaksError
from tests.fakes.driver import A100, made_up_driver

MHZ = 1_000_000
V100 = Hardware((7, 0), 80, 1530 * MHZ, 877 * MHZ, 4096, 6 << 20)
T4 = Hardware((7, 5), 40, 1590 * MHZ, 5001 * MHZ, 256, 4 << 20)
A10 = Hardware((8, 6), 72, 1695 * MHZ, 6251 * MHZ, 384, 6 << 20)


@pytest.mark.parametrize(
    ("gpu", "tera_operations", "gigabytes"),
    [(V100, 15.7, 900), (T4, 8.1, 320), (A100, 156, 1555), (A10, 62.5, 600)],
    ids=["V100", "T4", "A100", "A10"],
)
def test_peaks_are_those_of_the_data_sheet(gpu: Hardware, tera_operations: float, gigabytes: float) -> None:
    peaks = gpu_peaks(gpu)
    assert peaks.operations_per_s == pytest.approx(tera_operations * 1e12, rel=0.01)
    assert peaks.dram_bytes_per_s == pytest.approx(gigabytes * 1e9, rel=0.01)
    assert peaks.cache_bytes_per_s > peaks.dram_bytes_per_s
    assert peaks.cache_share_bytes == gpu.l2_bytes
    assert peaks.estimated


def test_a_gpu_newer_than_those_that_are_known_counts_as_the_newest_before_it() -> None:
    assert gpu_peaks(replace(A100, compute_capability=(8, 9))) == gpu_peaks(replace(A100, compute_capability=(8, 6)))
    assert gpu_peaks(replace(A100, compute_capability=(99, 0))) == gpu_peaks(replace(A100, compute_capability=(12, 0)))


def test_a_gpu_that_tells_too_little_has_no_peaks() -> None:
    with pytest.raises(PeaksError, match=r"^the peaks of GPUs with compute capability 3.5 are not known$"):
        gpu_peaks(replace(A100, compute_capability=(3, 5)))
    with pytest.raises(PeaksError, match=r"^the GPU does not tell enough of itself: .*memory_clock_hz=0"):
        gpu_peaks(replace(A100, memory_clock_hz=0))


def test_a_gpus_attributes_are_cudas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = made_up_driver(monkeypatch)
    assert hardware(0) == A100
    assert device_peaks(0, tmp_path) == gpu_peaks(A100)
    assert list(tmp_path.iterdir()) == []
    answers["cudaDeviceGetAttribute"] = (runtime.cudaError_t.cudaErrorInvalidValue, None)
    with pytest.raises(ConfigError, match=r"^GPU 0 does not tell cudaDevAttrComputeCapabilityMajor: cudaErrorInvalid"):
        hardware(0)
