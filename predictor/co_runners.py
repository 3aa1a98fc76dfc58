"""The co-runners of each batch, one by one, with the instants that they came and went.

For samples, and for learners that know co-runners by name; `predictor.colocation` sums them up. A launch and a finish
cost next to nothing; co-runners are worked out when they are asked for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import takewhile

import msgspec

from predictor.features import CoRunner, Exposure, Own, exposure_between

CO_RUNNERS_MAX = 256
"""Per batch; one so long that more come and go meanwhile knows the latest."""


@dataclass(slots=True, eq=False)
class _Batch:
    """until_ns None: it runs. core: None where nobody shares it."""

    own: Own
    core: int | None
    since_ns: int
    until_ns: int | None = None


class Execution(msgspec.Struct, frozen=True):
    """A batch's time on the device, over."""

    since_ns: int
    until_ns: int
    others: tuple[_Batch, ...]
    core: int | None = None

    @property
    def solo(self) -> bool:
        """No co-runner for any of that time."""
        return not any(map(self._overlap_ns, self.others))

    @property
    def core_co_runners(self) -> float:
        """Time mean of the number of co-runners on its core; 0 where each has its own."""
        if self.core is None or not self.others:
            return 0.0
        whole_ns = max(1, self.until_ns - self.since_ns)
        return sum(self._overlap_ns(other) for other in self.others if other.core == self.core) / whole_ns

    def between(self, since_ns: int, until_ns: int) -> Execution:
        """A part of it, with the co-runners of that time; all of it where that is no time."""
        if since_ns >= until_ns:
            return self
        there = (o for o in self.others if o.since_ns < until_ns and (o.until_ns is None or o.until_ns > since_ns))
        return Execution(since_ns, until_ns, tuple(there), self.core)

    def co_runners(self) -> list[CoRunner]:
        """Each with its overlap as fractions of this batch's time, in the order that they ended."""
        core, (begins, ends) = self.core, self._fractions()
        return [
            CoRunner(*other.own, begin, end, core is not None and other.core == core)
            for other, begin, end in zip(self.others, begins, ends, strict=True)
        ]

    def exposure(self, own: Own) -> Exposure:
        """Exposure to them of this batch, which is of kind `own`."""
        core, (begins, ends) = self.core, self._fractions()
        on_core = [] if core is None else [i for i, other in enumerate(self.others) if other.core == core]
        return exposure_between(own, [other.own for other in self.others], begins, ends, on_core)

    def _fractions(self) -> tuple[list[float], list[float]]:
        """Instants that each other came and went, as fractions of this batch's time."""
        since_ns, until_ns, whole_ns = self.since_ns, self.until_ns, max(1, self.until_ns - self.since_ns)
        begins = [max(0, other.since_ns - since_ns) / whole_ns for other in self.others]
        ends = [
            1.0 if (ended_ns := other.until_ns) is None or ended_ns >= until_ns else (ended_ns - since_ns) / whole_ns
            for other in self.others
        ]
        return begins, ends

    def _overlap_ns(self, other: _Batch) -> int:
        until_ns = self.until_ns if other.until_ns is None else min(self.until_ns, other.until_ns)
        return max(0, until_ns - max(self.since_ns, other.since_ns))


class CoRunners:
    """The batches that run now, by any hashable key; times are nanoseconds of one clock."""

    def __init__(self) -> None:
        self._running: dict[object, _Batch] = {}
        self._ended: deque[_Batch] = deque(maxlen=CO_RUNNERS_MAX)
        """Those that ended last, in that order."""

    def __len__(self) -> int:
        return len(self._running)

    def launch(self, key: object, own: Own, now_ns: int, core: int | None = None) -> None:
        """A batch starts. core: where others may run as well."""
        if not self._running:
            self._ended.clear()  # they are no co-runners of any batch to come
        self._running[key] = _Batch(own, core, now_ns)

    def finish(self, key: object, now_ns: int) -> Execution:
        """The batch ends."""
        batch = self._running.pop(key)
        batch.until_ns = now_ns
        since_ns = batch.since_ns
        met = list(takewhile(lambda other: (other.until_ns or 0) > since_ns, reversed(self._ended)))
        room = CO_RUNNERS_MAX - len(met)
        self._ended.append(batch)
        return Execution(since_ns, now_ns, (*reversed(met), *list(self._running.values())[: max(0, room)]), batch.core)
