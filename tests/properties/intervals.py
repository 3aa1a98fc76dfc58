"""Stretches of each batch's time on the device, kept for ever: its co-runners' parts follow by summing up."""

from __future__ import annotations

from dataclasses import dataclass

from predictor.colocation import SCALE, Parts
from predictor.features import PARTS
from predictor.slowdown_function import WIDTH, Sums

FEATURES = len(PARTS)
"""Of `Interval.own`, these come first."""


@dataclass
class Interval:
    """A batch's time on the device; `end_ns` None: it runs. part_of: the whole of which this is a part.

    own: its features, which the predictor learns from, and its contribution as it began, which is integrated.
    """

    own: Parts
    start_ns: int
    end_ns: int | None = None
    part_of: Interval | None = None

    def overlap_ns(self, start_ns: int, end_ns: int) -> int:
        own_end_ns = end_ns if self.end_ns is None else self.end_ns
        return max(0, min(own_end_ns, end_ns) - max(self.start_ns, start_ns))

    def without(self, in_ns: int, out_ns: int) -> Interval:
        """Its execution alone, where any time is left to that; it has ended."""
        assert self.end_ns is not None
        start_ns, end_ns = self.start_ns + in_ns, self.end_ns - out_ns
        return Interval(self.own, start_ns, end_ns, self) if (in_ns or out_ns) and start_ns < end_ns else self


class Intervals:
    """All of them, in the order that they began."""

    def __init__(self) -> None:
        self._all: list[Interval] = []

    def begin(self, own: Parts, now_ns: int) -> Interval:
        begun = Interval(own, now_ns)
        self._all.append(begun)
        return begun

    def had_co_runners(self, executed: Interval) -> bool:
        start_ns, end_ns = executed.start_ns, executed.end_ns
        assert end_ns is not None
        return any(i.overlap_ns(start_ns, end_ns) for i in self._others(executed))

    def suffered(self, interval: Interval, now_ns: int) -> Sums:
        """Time mean of its co-runners' parts, until now where it has not ended."""
        start_ns, end_ns = interval.start_ns, now_ns if interval.end_ns is None else interval.end_ns
        others = self._others(interval)
        if start_ns == end_ns:
            return tuple(sum(i.own[f] for i in others if i.end_ns is None) / SCALE for f in range(FEATURES + WIDTH))
        return tuple(whole / ((end_ns - start_ns) * SCALE) for whole in _integrated(others, start_ns, end_ns))

    def integral(self, start_ns: int, end_ns: int) -> list[int]:
        """Of all, by their parts."""
        return _integrated(self._all, start_ns, end_ns)

    def _others(self, interval: Interval) -> list[Interval]:
        return [i for i in self._all if i is not interval and i is not interval.part_of]


def _integrated(intervals: list[Interval], start_ns: int, end_ns: int) -> list[int]:
    overlaps = [(ns, i.own) for i in intervals if (ns := i.overlap_ns(start_ns, end_ns))]
    return [sum(ns * own[f] for ns, own in overlaps) for f in range(FEATURES + WIDTH)]
