"""What every running batch suffers from its neighbours, exactly, for any number of co-runners.

One running integral G(t) = ∫ Σ_j f_j dt over all running batches, in whole numbers, so that nothing drifts:
a batch's share is G(end) − G(start) − f_self·(end − start). Each launch and finish costs O(1).
"""

from __future__ import annotations

from dataclasses import dataclass

from predictor.workload import Load

SCALE = 1_000_000
"""Features are kept as parts per million: sums and integrals of integers are exact and order-free."""

Vector = tuple[int, int, int]


def quantize(load: Load) -> Vector:
    """A load's features in parts per million."""
    return (round(load.compute * SCALE), round(load.l2 * SCALE), round(load.dram * SCALE))


@dataclass(frozen=True)
class _Entry:
    started_ns: int
    own: Vector
    integral_at_start: Vector


class Colocation:
    """The batches that run now and the time integral of their features.

    Keys are any hashable; times are nanoseconds of one clock and never go back.
    """

    def __init__(self) -> None:
        self._entries: dict[object, _Entry] = {}
        self._sum: Vector = (0, 0, 0)
        self._integral: Vector = (0, 0, 0)
        self._now_ns = 0

    def __len__(self) -> int:
        return len(self._entries)

    def advance(self, now_ns: int) -> None:
        """Carry the integral to `now_ns`. Raises ValueError where time would go back."""
        dt = now_ns - self._now_ns
        if dt < 0:
            raise ValueError(f"time went back from {self._now_ns} to {now_ns} ns")
        if dt:
            s, g = self._sum, self._integral
            self._integral = (g[0] + s[0] * dt, g[1] + s[1] * dt, g[2] + s[2] * dt)
            self._now_ns = now_ns

    def launch(self, key: object, load: Load, now_ns: int) -> None:
        """A batch starts beside whatever runs."""
        if key in self._entries:
            raise ValueError(f"batch {key!r} already runs")
        self.advance(now_ns)
        own, s = quantize(load), self._sum
        self._entries[key] = _Entry(now_ns, own, self._integral)
        self._sum = (s[0] + own[0], s[1] + own[1], s[2] + own[2])

    def finish(self, key: object, now_ns: int) -> tuple[float, float, float]:
        """The batch ends; returns its neighbours' mean features over its execution (see `suffered`)."""
        self.advance(now_ns)
        suffered = self.suffered(key)
        own, s = self._entries.pop(key).own, self._sum
        self._sum = (s[0] - own[0], s[1] - own[1], s[2] - own[2])
        return suffered

    def suffered(self, key: object) -> tuple[float, float, float]:
        """Mean of the summed features of its neighbours, as shares, over the batch's time so far.

        A batch that started this very nanosecond reports the neighbours of the moment.
        """
        entry = self._entries[key]
        dt, own = self._now_ns - entry.started_ns, entry.own
        if dt == 0:
            s = self._sum
            return ((s[0] - own[0]) / SCALE, (s[1] - own[1]) / SCALE, (s[2] - own[2]) / SCALE)
        g, g0, scale = self._integral, entry.integral_at_start, dt * SCALE
        return (
            (g[0] - g0[0] - own[0] * dt) / scale,
            (g[1] - g0[1] - own[1] * dt) / scale,
            (g[2] - g0[2] - own[2] * dt) / scale,
        )

    def started_ns(self, key: object) -> int:
        """When the batch was launched."""
        return self._entries[key].started_ns

    def check(self) -> None:
        """The running sum equals the sum over the running batches; nothing runs: it is zero."""
        total = [sum(shares) for shares in zip((0, 0, 0), *(e.own for e in self._entries.values()), strict=True)]
        assert list(self._sum) == total, (self._sum, total)
        assert all(e.started_ns <= self._now_ns for e in self._entries.values())
