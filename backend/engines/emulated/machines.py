"""GPUs that `isochrone emulate` knows, by NVIDIA's public data sheets: dense peaks, without sparsity."""

from __future__ import annotations

from typing import NamedTuple

PEAK_EXPONENT = 0.7
"""By how much of the ratio of two GPUs' peaks a batch's busy part differs (`python -m benchmarks.emulated --fit`)."""
_MEASURED_PCIE_3 = 11.4, 49.0
_MEASURED_PCIE_4 = 25.0, 49.0
"""GB/s of a copy from pinned memory, and microseconds of each beside its bytes (gen 4: nvbandwidth's README)."""


class Machine(NamedTuple):
    """A GPU. fp16_tflops: of its tensor cores; pcie: GB/s of a copy, and microseconds of each beside its bytes.

    sheet: the document that has all figures but those of PCIe.
    """

    product: str
    fp16_tflops: float
    memory_gb_per_s: float
    multiprocessors: int
    boost_mhz: float
    pcie: tuple[float, float]
    sheet: str


MACHINES = {
    "a100": Machine(
        *("A100 SXM 80 GB", 312.0, 2039.0, 108, 1410.0, _MEASURED_PCIE_4),
        "NVIDIA A100 Tensor Core GPU Datasheet; A100 Architecture Whitepaper",
    ),
    "v100": Machine(
        *("V100 SXM2 32 GB", 125.0, 900.0, 80, 1530.0, _MEASURED_PCIE_3),
        "NVIDIA V100 Tensor Core GPU Datasheet; V100 Architecture Whitepaper",
    ),
    "t4": Machine(
        *("T4", 65.0, 320.0, 40, 1590.0, _MEASURED_PCIE_3),
        "NVIDIA T4 Tensor Core GPU Datasheet; Turing Architecture Whitepaper",
    ),
    "l4": Machine(
        *("L4", 121.0, 300.0, 58, 2040.0, _MEASURED_PCIE_4),
        "NVIDIA L4 Tensor Core GPU Datasheet; Ada Architecture Whitepaper",
    ),
}


def busy_ratio(source: str, target: str) -> float:
    """Time that kernels take on `target` over that on `source`: their peaks' ratio to the power `PEAK_EXPONENT`."""
    ratio = MACHINES[source].fp16_tflops / MACHINES[target].fp16_tflops
    return float(ratio**PEAK_EXPONENT)
