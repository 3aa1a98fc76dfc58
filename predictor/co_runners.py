"""Who ran beside whom and when: of each batch, every neighbour with the instants it came and went.

What `predictor.colocation` sums up, one by one: for samples, and for learners that know their neighbours by name. A
launch and a finish cost next to nothing; the neighbours are worked out when they are asked for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import takewhile

import msgspec

from predictor.features import CoRunner, Own

NEIGHBOURS_MAX = 256
"""Of one batch; one so long that more come and go beside it knows the latest."""


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
        """Whether nobody else was there for any of that time."""
        return not any(map(self._overlap_ns, self.others))

    @property
    def core_co_runners(self) -> float:
        """How many shared its core, as the time mean has it; 0 where each has its own."""
        if self.core is None or not self.others:
            return 0.0
        whole_ns = max(1, self.until_ns - self.since_ns)
        return sum(self._overlap_ns(guest) for guest in self.others if guest.core == self.core) / whole_ns

    def between(self, since_ns: int, until_ns: int) -> Execution:
        """A part of it, with those who were there then; all of it where that is no time."""
        if since_ns >= until_ns:
            return self
        there = (o for o in self.others if o.since_ns < until_ns and (o.until_ns is None or o.until_ns > since_ns))
        return Execution(since_ns, until_ns, tuple(there), self.core)

    def co_runners(self) -> list[CoRunner]:
        """Each with its overlap as fractions of this batch's time, those that left first in front."""
        since_ns, whole_ns, core = self.since_ns, max(1, self.until_ns - self.since_ns), self.core
        found = []
        for guest in self.others:
            own, until_ns = guest.own, guest.until_ns
            begin = max(0, guest.since_ns - since_ns) / whole_ns
            end = 1.0 if until_ns is None or until_ns >= self.until_ns else (until_ns - since_ns) / whole_ns
            same_core = core is not None and guest.core == core
            found.append(CoRunner(own.model, own.batch_size, own.load, begin, end, same_core))
        return found

    def _overlap_ns(self, guest: _Batch) -> int:
        until_ns = self.until_ns if guest.until_ns is None else min(self.until_ns, guest.until_ns)
        return max(0, until_ns - max(self.since_ns, guest.since_ns))


class CoRunners:
    """The batches that run now, by any hashable key; times are nanoseconds of one clock."""

    def __init__(self) -> None:
        self._here: dict[object, _Batch] = {}
        self._gone: deque[_Batch] = deque(maxlen=NEIGHBOURS_MAX)
        """Those that ended last, in that order."""

    def __len__(self) -> int:
        return len(self._here)

    def launch(self, key: object, own: Own, now_ns: int, core: int | None = None) -> None:
        """A batch starts beside whatever runs. core: where others may run as well."""
        if not self._here:
            self._gone.clear()  # they were nobody's neighbours
        self._here[key] = _Batch(own, core, now_ns)

    def finish(self, key: object, now_ns: int) -> Execution:
        """The batch ends."""
        guest = self._here.pop(key)
        guest.until_ns = now_ns
        since_ns = guest.since_ns
        met = list(takewhile(lambda other: (other.until_ns or 0) > since_ns, reversed(self._gone)))
        room = NEIGHBOURS_MAX - len(met)
        self._gone.append(guest)
        return Execution(since_ns, now_ns, (*reversed(met), *list(self._here.values())[: max(0, room)]), guest.core)
