"""A GPU's peaks from its attributes. An estimate: nothing is measured, and kernels reach less."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.peaks import Peaks, PeaksError

OPERATIONS_PER_CLOCK = {
    (5, 0): 256,
    (6, 0): 128,
    (6, 1): 256,
    (7, 0): 128,
    (8, 0): 1024,
    (8, 6): 512,
    (9, 0): 2048,
    (10, 0): 4096,
    (12, 0): 512,
}
"""Operations of one multiprocessor in a 32-bit matrix product with engines' defaults, from this compute capability on:
TF32 where tensor cores have it, else FP32; a multiply-add is two. Sources: "Arithmetic Instructions" of the CUDA
C++ Programming Guide; for TF32 NVIDIA's data sheets, rates without sparsity over multiprocessors × boost clock."""
L2_BYTES_PER_CLOCK = 32
"""Bytes of one multiprocessor: between V100 (2048 over 80) and A100 (5120 over 108), by NVIDIA's A100 white paper."""


@dataclass(frozen=True)
class Hardware:
    """A GPU's attributes as CUDA has them. Clocks are the highest; a memory transfers twice per clock."""

    compute_capability: tuple[int, int]
    multiprocessors: int
    clock_hz: int
    memory_clock_hz: int
    memory_bus_bits: int
    l2_bytes: int


def gpu_peaks(gpu: Hardware) -> Peaks:
    """Peaks of the whole GPU. Raises `PeaksError` where its attributes do not suffice."""
    known = [capability for capability in OPERATIONS_PER_CLOCK if capability <= gpu.compute_capability]
    if not known:
        major, minor = gpu.compute_capability
        raise PeaksError(f"the peaks of GPUs with compute capability {major}.{minor} are not known")
    clocks = gpu.multiprocessors * gpu.clock_hz
    try:
        return Peaks(
            operations_per_s=OPERATIONS_PER_CLOCK[max(known)] * clocks,
            cache_bytes_per_s=L2_BYTES_PER_CLOCK * clocks,
            dram_bytes_per_s=2 * gpu.memory_clock_hz * gpu.memory_bus_bits / 8,
            cache_share_bytes=gpu.l2_bytes,
            estimated=True,
        )
    except ValueError:
        raise PeaksError(f"the GPU does not tell enough of itself: {gpu}") from None
