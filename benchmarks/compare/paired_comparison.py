"""Paired comparison of two servers: on the same requests, in the repeats that both took part in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from backend.load.figures import MeasuredPoint

Count = Callable[[MeasuredPoint], int]
"""Counts requests."""


class PairedComparison:
    """One load. Falsy where the two share no repeat."""

    def __init__(self, found: Sequence[MeasuredPoint], one: str, other: str, load: float) -> None:
        first, second = ({p.repeat: p for p in found if (p.target, p.load) == (s, load)} for s in (one, other))
        self._both = [(first[repeat], second[repeat]) for repeat in sorted(first.keys() & second.keys())]

    def __bool__(self) -> bool:
        return bool(self._both)

    def ratio(self, of: Count, without: float) -> float:
        """Ratio of the sums over the repeats; `without` where the other's is 0."""
        mine, others = (sum(map(of, side)) for side in zip(*self._both, strict=True))
        return mine / others if others else without

    def kept_more(self) -> tuple[float, float]:
        """Difference of the shares of deadlines kept, mean over the repeats, and its standard error (NaN for one)."""
        differences = [one.all.met_share - other.all.met_share for one, other in self._both]
        count = len(differences)
        return fmean(differences), stdev(differences) / math.sqrt(count) if count > 1 else math.nan


def met(p: MeasuredPoint) -> int:
    return p.all.met


def missed(p: MeasuredPoint) -> int:
    """Refused and failed ones too."""
    return p.all.requests - p.all.met


def met_of(priority: str) -> Count:
    """Counts those that kept their deadline in a class."""
    return lambda p: p.classes[priority].met if priority in p.classes else 0
