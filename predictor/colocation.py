"""The exact time mean of every running batch's co-runners, for any number of them.

One running integral G(t) = ∫ Σ_j f_j dt over all running batches, in whole numbers, so that nothing drifts:
a batch's share is G(end) − G(start) − f_self·(end − start). f is what the predictor has a batch contribute, as it was
launched. Each launch and finish costs O(1).
"""

from __future__ import annotations

from operator import add, sub
from typing import NamedTuple

from predictor.slowdown_function import ZERO_SUMS, Sums

SCALE = 1_000_000
"""Contributions are kept in millionths: sums and integrals of integers are exact and order-free."""

Parts = tuple[int, ...]
_NOTHING: Parts = (0,) * len(ZERO_SUMS)


def quantize(adds: Sums) -> Parts:
    """A contribution in millionths."""
    return tuple([round(part * SCALE) for part in adds])


class _Entry(NamedTuple):
    started_ns: int
    own: Parts
    integral_at_start: Parts


class Suffered(NamedTuple):
    """Slowdown by a batch's co-runners. Few ask, so it is worked out only then, of values that change no more."""

    entry: _Entry
    integral: Parts
    sum_at_end: Parts
    end_ns: int

    def mean(self) -> Sums:
        """Mean of the co-runners' summed contributions over the batch's time.

        Of a batch that started at the same nanosecond, those of the moment.
        """
        started_ns, own, integral_at_start = self.entry
        dt = self.end_ns - started_ns
        if dt == 0:
            return _sums(tuple(map(sub, self.sum_at_end, own)), SCALE)
        whole = map(sub, self.integral, integral_at_start)
        return _sums(tuple(map(sub, whole, [part * dt for part in own])), dt * SCALE)


class Colocation:
    """The batches that run now and the time integral of their contributions.

    Keys are any hashable; times are nanoseconds of one clock and never go back.
    """

    def __init__(self) -> None:
        self._entries: dict[object, _Entry] = {}
        self._sum: Parts = _NOTHING
        self._integral: Parts = _NOTHING
        self._now_ns = 0

    def __len__(self) -> int:
        return len(self._entries)

    def advance(self, now_ns: int) -> None:
        """Carry the integral to `now_ns`. Raises ValueError where time would go back."""
        dt = now_ns - self._now_ns
        if dt < 0:
            raise ValueError(f"time went back from {self._now_ns} to {now_ns} ns")
        if dt:
            self._integral = tuple([g + s * dt for g, s in zip(self._integral, self._sum, strict=True)])
            self._now_ns = now_ns

    def launch(self, key: object, adds: Sums, now_ns: int) -> None:
        """A batch that contributes `adds` starts."""
        if key in self._entries:
            raise ValueError(f"batch {key!r} already runs")
        self.advance(now_ns)
        parts = quantize(adds)
        self._entries[key] = _Entry(now_ns, parts, self._integral)
        self._sum = tuple(map(add, self._sum, parts))

    def finish(self, key: object, now_ns: int) -> Suffered:
        """The batch ends. Returns what its co-runners did to it."""
        self.advance(now_ns)
        suffered = self._suffered(key)
        self._sum = tuple(map(sub, self._sum, self._entries.pop(key).own))
        return suffered

    def running(self) -> Sums:
        """The summed contributions of all that run now."""
        return _sums(self._sum, SCALE)

    def own(self, key: object) -> Sums:
        """This batch's part of them."""
        return _sums(self._entries[key].own, SCALE)

    def suffered(self, key: object) -> Sums:
        """Mean of its co-runners' summed contributions over the batch's time so far, as `Suffered.mean`."""
        return self._suffered(key).mean()

    def _suffered(self, key: object) -> Suffered:
        return Suffered(self._entries[key], self._integral, self._sum, self._now_ns)

    def check(self) -> None:
        """The running sum equals the sum over the running batches; nothing runs: it is zero."""
        total = [sum(parts) for parts in zip(_NOTHING, *(e.own for e in self._entries.values()), strict=True)]
        assert list(self._sum) == total, (self._sum, total)
        assert all(e.started_ns <= self._now_ns for e in self._entries.values())


def _sums(parts: Parts, scale: int) -> Sums:
    return tuple([part / scale for part in parts])
