"""The running batches: how far each is, what it adds to the others, at which pace it goes.

Kept from event to event, so that a decision finds it ready. Few batches run at once, and most questions are about one
of them: plain numbers answer those sooner than arrays would. Whole timelines are computed on arrays, see `beside`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from operator import sub

import numpy as np

from backend.scheduler.core_sharing import Turns
from backend.scheduler.state import BatchKey, Running
from backend.scheduler.transfer_forecast import Passage, Traffic
from predictor.features import ZERO_SUMS, Own, Sums, contribution
from predictor.slowdown_function import ROW, Matrix, SlowdownFunction, SlowdownFunctions, Tensor, Vector
from predictor.transfers import NO_TRANSFERS, TransferTimes

MIN_SLOWDOWN = 0.5
"""Less nobody would believe."""
_NEARLY_DONE = 0.05
"""Of its solo latency is left at least: there is nothing better to go by for a batch that outlives its prediction."""
_ADDS, _SHARES = slice(ROW, ROW + 6), ROW + 6
_HEIGHT = ROW + 8

Column = tuple[float, ...]
"""A batch as a timeline's arrays hold it: its response's row, what it adds to the others, how it responds to a shared
core, what of it remains."""


@dataclass(slots=True, eq=False)
class Going:
    """A running batch. deadline_ns: inf where it has none. pace: its slowdown beside those that run now."""

    key: BatchKey
    own: Own
    adds: Sums
    priority: int
    deadline_ns: float
    response: SlowdownFunction
    alone: float
    """Its slowdown without neighbours."""
    left_ns: float
    """Of its solo latency, by the forecast; below 0 where it outlives that."""
    pace: float = 1.0
    row: Column | None = None
    """Of its response, where a timeline needed it."""
    front: Going | None = None
    """For which it stands still; then it adds nothing to the others."""
    core: int | None = None
    crowd: int = 0
    """Others on its core, where lanes share cores."""

    @property
    def remaining_ns(self) -> float:
        """Of its solo latency, as of the last `Progress.advance`; where it stands still, the other's comes first."""
        least_ns = _NEARLY_DONE * self.own.load.solo_ns
        own_ns = self.left_ns if self.left_ns > least_ns else least_ns
        return own_ns if self.front is None else own_ns + self.front.remaining_ns

    def slowdown(self, sums: Sums, more: int = 0) -> float:
        """Where all that run, itself among them, add `sums`. more: on its core, than there are."""
        a, b, c, d, e, f = sums
        n, compute, l2, dram, solo, size = self.adds
        found = self.response.slowdown((a - n, b - compute, c - l2, d - dram, e - solo, f - size), self.crowd + more)
        return found if found > MIN_SLOWDOWN else MIN_SLOWDOWN

    def column(self) -> Column:
        if self.row is None:
            self.row = (*self.response.row(self.adds), *self.adds, self.response.sharing)
        return (*self.row, self.remaining_ns)


class Progress:
    """All times in nanoseconds. Batches are in one order, that of their launches, in all that is said of them."""

    def __init__(self) -> None:
        self._going: dict[BatchKey, Going] = {}
        self._now_ns = 0
        self._sums: Sums | None = None
        """What all of them add; None: to be summed up anew."""
        self._paced = True
        """Whether each batch's pace is that beside those that run now."""
        self.traffic = Traffic()

    def __len__(self) -> int:
        return len(self._going)

    @property
    def batches(self) -> Collection[Going]:
        """As of the last `advance`."""
        return self._going.values()

    def launch(
        self,
        batch: Running,
        response: SlowdownFunction,
        now_ns: int,
        work: TransferTimes = NO_TRANSFERS,
        core: int | None = None,
    ) -> None:
        """A batch starts beside whatever runs: at once, or when its inputs are there. core: where lanes share cores."""
        self.advance(now_ns)
        there = self._on(core)
        for other in there:
            other.crowd += 1
        own = batch.own
        self._going[batch.key] = Going(
            batch.key,
            own,
            contribution(own.batch_size, own.load),
            batch.priority,
            inf if batch.deadline_ns is None else batch.deadline_ns,
            response,
            response.slowdown(ZERO_SUMS),
            own.load.solo_ns,
            core=core,
            crowd=len(there),
        )
        self._changed()
        if work is not NO_TRANSFERS:
            self.traffic.launch(batch.key, work, now_ns)

    def finish(self, key: BatchKey, now_ns: int) -> None:
        """The batch is gone."""
        self.advance(now_ns)
        for other in self._on(self._going.pop(key).core):
            other.crowd -= 1
        self._changed()
        if key in self.traffic:
            self.traffic.finish(key, now_ns)

    def stand(self, key: BatchKey, front: BatchKey) -> None:
        """From now on it stands still for the other one."""
        batch = self._going[key]
        batch.front, batch.adds, batch.row = self._going[front], ZERO_SUMS, None
        self._changed()

    def go_on(self, key: BatchKey) -> None:
        """It stood still until now."""
        batch = self._going[key]
        batch.front, batch.adds, batch.row = None, contribution(batch.own.batch_size, batch.own.load), None
        self._changed()

    def advance(self, now_ns: int) -> None:
        """Every batch has gone on at its pace since the last call."""
        span_ns = now_ns - self._now_ns
        if span_ns and self._going:
            self.set_pace()
            for batch in self._going.values():
                if batch.front is None:
                    batch.left_ns -= span_ns / batch.pace
            if self.traffic:
                for key, waited_ns in self.traffic.advance(now_ns).items():
                    batch = self._going[key]
                    batch.left_ns += waited_ns / batch.pace
        self._now_ns = now_ns

    def set_pace(self) -> None:
        """Each batch's pace becomes that beside those that run now; kept until who runs changes."""
        if not self._paced:
            sums, self._paced = self.sums(), True
            for batch in self.batches:
                batch.pace = batch.slowdown(sums)

    def renew(self, response_of: Callable[[BatchKey], SlowdownFunction]) -> None:
        """The predictor has learned: from here on the batches go by these."""
        for key, batch in self._going.items():
            batch.response, batch.row = response_of(key), None
            batch.alone = batch.response.slowdown(ZERO_SUMS)
        self._paced = False

    def crowd(self, core: int | None) -> int:
        """How many run on a core, where lanes share cores."""
        return len(self._on(core))

    def sums(self) -> Sums:
        """What all that run add."""
        if self._sums is None:
            n, compute, l2, dram, solo, size = map(sum, zip(ZERO_SUMS, *(b.adds for b in self.batches), strict=True))
            self._sums = (n, compute, l2, dram, solo, size)
        return self._sums

    def sums_with(self, adds: Sums) -> Sums:
        """The same with one more beside them that adds this."""
        a, b, c, d, e, f = self.sums()
        n, compute, l2, dram, solo, size = adds
        return (a + n, b + compute, c + l2, d + dram, e + solo, f + size)

    def sums_without(self, place: int) -> Sums:
        """The same but for the one at this place among them."""
        n, compute, l2, dram, solo, size = map(sub, self.sums(), list(self._going.values())[place].adds)
        return (n, compute, l2, dram, solo, size)

    def core(self, place: int) -> int | None:
        """Of the one at this place, where lanes share cores."""
        return list(self._going.values())[place].core

    def passages(
        self, candidate: TransferTimes = NO_TRANSFERS, candidate_takes_ns: float = 0.0
    ) -> tuple[Mapping[BatchKey, Passage], Passage]:
        """See `Traffic.passages`, as each batch goes on at its present pace."""
        self.set_pace()
        takes_ns = {key: batch.remaining_ns * batch.pace for key, batch in self._going.items()}
        return self.traffic.passages(takes_ns, candidate, candidate_takes_ns)

    def beside(
        self, candidates: Sequence[Column | None], core: int | None = None
    ) -> tuple[Matrix, Tensor, SlowdownFunctions, Turns | None]:
        """(k, n + 1) what remains, (k, 6, n + 1) what each adds, and how it responds, for `forecast_finishes`.

        In as many cases, each with one more batch, last, on that core; None: with nobody.
        """
        n = len(self._going)
        table = np.empty((len(candidates), _HEIGHT, n + 1))
        table[..., :n] = np.array([batch.column() for batch in self._going.values()]).T
        table[..., n] = [_NOBODY if candidate is None else candidate for candidate in candidates]
        turns = None
        if core is not None:
            cores = [*(batch.core for batch in self._going.values()), core]
            turns = Turns(np.array(cores), table[:, _SHARES], [candidate is not None for candidate in candidates])
        return table[:, -1], table[:, _ADDS], SlowdownFunctions(table[:, :ROW]), turns

    def _on(self, core: int | None) -> list[Going]:
        return [] if core is None else [batch for batch in self._going.values() if batch.core == core]

    def check(self, running: dict[BatchKey, Running]) -> None:
        """They are the running batches."""
        assert sorted(self._going) == sorted(running)
        self.traffic.check(running)
        for key, batch in self._going.items():
            own = running[key].own
            adds = contribution(own.batch_size, own.load) if batch.front is None else ZERO_SUMS
            assert (batch.own, batch.adds) == (own, adds)
            assert batch.front is None or batch.front in self._going.values()
            assert batch.crowd == max(0, self.crowd(batch.core) - 1)

    def _changed(self) -> None:
        self._sums, self._paced = None, False


def column(own: Own, response: SlowdownFunction) -> Column:
    """A batch that begins, or would."""
    adds = contribution(own.batch_size, own.load)
    return (*response.row(adds), *adds, response.sharing, own.load.solo_ns)


_NOBODY: Column = (*[0.0] * (ROW + 7), 1e18)
"""A batch that adds nothing and does not end."""


def slowdowns(responses: SlowdownFunctions, sums: Vector, turns: Turns | None) -> Vector:
    """(n,) where all that runs contributes `sums`."""
    found = responses.slowdowns(sums, None if turns is None else turns.terms())
    return np.maximum(found, MIN_SLOWDOWN, out=found)
