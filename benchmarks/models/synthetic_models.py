"""Models that nobody measured, for benchmarks of the scheduler itself."""

from __future__ import annotations

from predictor.workload import Load, ModelProfile

_SIZES = (1, 2, 4, 8)


def synthetic_profile(solo_ns: float, compute: float, l2: float, dram: float) -> ModelProfile:
    """A batch of n rows takes 0.4 + 0.6 n times as long as one of a single row, `solo_ns`, and uses the same shares."""
    loads = (Load(round(solo_ns * (0.4 + 0.6 * size)), compute, l2, dram) for size in _SIZES)
    return ModelProfile(_SIZES, tuple(loads))
