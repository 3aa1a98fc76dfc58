"""The running batches as columns of one table: how far each is, what it adds to the others, at which pace it goes.

Kept from event to event, so that a decision finds it ready: columns are filled at a launch, dropped at a finish.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

import numpy as np

from backend.scheduler.state import BatchKey, Running
from backend.scheduler.traffic import Passage, Traffic
from predictor.features import NOBODY, Own, contribution
from predictor.response import ROW, Matrix, Response, Responses, Tensor, Vector
from predictor.transfers import NOTHING, Work

MIN_SLOWDOWN = 0.5
"""Less nobody would believe."""
_NEARLY_DONE = 0.05
"""Of its solo latency is left at least: there is nothing better to go by for a batch that outlives its prediction."""
_ADDS = slice(ROW, ROW + 6)
_REMAINING, _LEAST, _DEADLINE, _PRIORITY, _ALONE = range(ROW + 6, ROW + 11)
_HEIGHT = ROW + 11

Column = tuple[float, ...]
"""A batch."""


class Progress:
    """All times in nanoseconds. Batches are in no particular order, the same in every array."""

    def __init__(self) -> None:
        self._table = np.zeros((_HEIGHT, 8))
        self._keys: list[BatchKey] = []
        self._now_ns = 0
        self._pace: Vector | None = None
        self.traffic = Traffic()

    def __len__(self) -> int:
        return len(self._keys)

    def launch(self, batch: Running, response: Response, now_ns: int, work: Work = NOTHING) -> None:
        """A batch starts beside whatever runs: at once, or when its inputs are there."""
        self.advance(now_ns)
        n = len(self._keys)
        if n == self._table.shape[1]:
            self._table = np.hstack([self._table, np.zeros_like(self._table)])
        deadline_ns = inf if batch.deadline_ns is None else batch.deadline_ns
        self._table[:, n] = column(batch.own, response, deadline_ns, batch.priority)
        self._keys.append(batch.key)
        self._pace = None
        if work is not NOTHING:
            self.traffic.launch(batch.key, work, now_ns)

    def finish(self, key: BatchKey, now_ns: int) -> None:
        """The batch is gone; another takes its column."""
        self.advance(now_ns)
        i, last = self._keys.index(key), self._keys.pop()
        if last != key:
            self._keys[i] = last
            self._table[:, i] = self._table[:, len(self._keys)]
        self._pace = None
        if key in self.traffic:
            self.traffic.finish(key, now_ns)

    def advance(self, now_ns: int) -> None:
        """Every batch has gone on at its pace since the last call."""
        if self._keys and now_ns != self._now_ns:
            self._row(_REMAINING)[:] -= (now_ns - self._now_ns) / self.pace()
            if self.traffic:
                for key, waited_ns in self.traffic.advance(now_ns).items():
                    i = self._keys.index(key)
                    self._table[_REMAINING, i] += waited_ns / self.pace()[i]
        self._now_ns = now_ns

    def renew(self, response_of: Callable[[BatchKey], Response]) -> None:
        """The predictor has learned: from here on the batches go by these."""
        for i, key in enumerate(self._keys):
            response = response_of(key)
            self._table[:ROW, i] = response.row(self._table[_ADDS, i].tolist())
            self._table[_ALONE, i] = response.slowdown(NOBODY)
        self._pace = None

    def pace(self) -> Vector:
        """(n,) slowdown of each beside the others."""
        if self._pace is None:
            self._pace = slowdowns(self.responses, self.adds.sum(axis=1))
        return self._pace

    @property
    def responses(self) -> Responses:
        return Responses(self._table[:ROW, : len(self._keys)])

    @property
    def adds(self) -> Matrix:
        """(6, n) what each contributes to its neighbours."""
        return self._table[_ADDS, : len(self._keys)]

    @property
    def remaining_ns(self) -> Vector:
        """(n,) of each one's solo latency, as of the last `advance`."""
        return np.maximum(self._row(_REMAINING), self._row(_LEAST))

    @property
    def due_ns(self) -> Vector:
        """(n,) from the last `advance` to each one's deadline, inf where there is none."""
        return self._row(_DEADLINE) - self._now_ns

    @property
    def priorities(self) -> Vector:
        return self._row(_PRIORITY)

    @property
    def alone(self) -> Vector:
        """(n,) slowdown of each without neighbours."""
        return self._row(_ALONE)

    def passages(
        self, candidate: Work = NOTHING, candidate_takes_ns: float = 0.0
    ) -> tuple[Mapping[BatchKey, Passage], Passage]:
        """See `Traffic.passages`, as each batch goes on at its present pace."""
        takes_ns = dict(zip(self._keys, (self.remaining_ns * self.pace()).tolist(), strict=True))
        return self.traffic.passages(takes_ns, candidate, candidate_takes_ns)

    def passing_ns(self, passages: Mapping[BatchKey, Passage]) -> Vector:
        """(n,) what each batch's transfers still take."""
        return np.array([passages[key].both_ns if key in passages else 0.0 for key in self._keys])

    def beside(self, candidates: Sequence[Column | None]) -> tuple[Matrix, Tensor, Responses]:
        """`remaining_ns`, `adds`, `responses` in as many cases, each with one more batch, last; None: with nobody."""
        n = len(self._keys)
        table = np.empty((len(candidates), _HEIGHT, n + 1))
        table[..., :n] = self._table[:, :n]
        table[..., n] = [_NOBODY if candidate is None else candidate for candidate in candidates]
        return np.maximum(table[:, _REMAINING], table[:, _LEAST]), table[:, _ADDS], Responses(table[:, :ROW])

    def _row(self, which: int) -> Vector:
        row: Vector = self._table[which, : len(self._keys)]
        return row

    def check(self, running: dict[BatchKey, Running]) -> None:
        """The columns are the running batches'."""
        assert sorted(self._keys) == sorted(running)
        self.traffic.check(running)
        for key, adds in zip(self._keys, self.adds.T.tolist(), strict=True):
            assert tuple(adds) == contribution(running[key].rows, running[key].load)


def column(own: Own, response: Response, deadline_ns: float = inf, priority: int = 0) -> Column:
    """What the table holds of a batch that begins, or would."""
    load, adds = own.load, contribution(own.batch_size, own.load)
    return (
        *response.row(adds),
        *adds,
        load.solo_ns,
        _NEARLY_DONE * load.solo_ns,
        deadline_ns,
        priority,
        response.slowdown(NOBODY),
    )


_NOBODY: Column = (*[0.0] * (ROW + 6), 1e18, 0.0, inf, 0.0, 1.0)
"""A batch that adds nothing and does not end."""


def slowdowns(responses: Responses, sums: Vector) -> Vector:
    """(n,) where all that runs contributes `sums`."""
    found = responses.slowdowns(sums)
    return np.maximum(found, MIN_SLOWDOWN, out=found)
