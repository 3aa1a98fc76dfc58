"""Machines in numbers: their peaks, and how alike two of them are. Nothing that was learned must enter here."""

from __future__ import annotations

from math import exp, log2

import msgspec

_LIKENESS_FADES = 1.0
"""Root mean square of log2 ratios of peaks at which another machine counts exp(−1/2)."""
_UNKNOWN = 1.0
"""Distance to a machine with which no peak is known in common."""
_PEAK_MAX = 1 << 63
"""Beyond any machine, and within a float, as numbers of any length can be read from a file."""


class MachinePeaks(msgspec.Struct, frozen=True):
    """Peaks of a machine, or of a partition of one; None where unknown. lanes: batches it runs at once."""

    compute_tflops: float | None = None
    memory_gb_per_s: float | None = None
    multiprocessors: int | None = None
    memory_bytes: int | None = None
    lanes: int | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not 0 < value <= _PEAK_MAX:
                raise ValueError(
                    f"{name} of a machine is {value}, but must be above 0 and at most {_PEAK_MAX}, or None where it "
                    "is unknown"
                )


def likeness(one: MachinePeaks, other: MachinePeaks) -> float:
    """Weight, 0..1, of what is known of one machine for the other; 1: their known peaks are the same."""
    ratios = [
        log2(value / counterpart)
        for name in one.__struct_fields__
        if (value := getattr(one, name)) is not None and (counterpart := getattr(other, name)) is not None
    ]
    square = sum(ratio * ratio for ratio in ratios) / len(ratios) if ratios else _UNKNOWN
    return max(1e-6, exp(-0.5 * square / _LIKENESS_FADES**2))
