"""The running batches as rows of one table: how far each is, what it adds to the others' load, at which pace it goes.

Kept from event to event, so that a decision finds it ready: rows are filled at a launch, dropped at a finish.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np

from backend.scheduler.state import BatchKey, Running
from predictor.features import NOBODY, Own, contribution
from predictor.response import ROW, Matrix, Response, Responses, Vector

MIN_SLOWDOWN = 0.5
"""Less nobody would believe."""
_NEARLY_DONE = 0.05
"""Of its solo latency is left at least: there is nothing better to go by for a batch that outlives its prediction."""
_ADDS = slice(ROW, ROW + 6)
_REMAINING, _LEAST, _DEADLINE, _PRIORITY, _ALONE = range(ROW + 6, ROW + 11)
_COLUMNS = ROW + 11


class Progress:
    """All times in nanoseconds. Rows are in no particular order, the same in every array."""

    def __init__(self) -> None:
        self._table = np.zeros((8, _COLUMNS))
        self._keys: list[BatchKey] = []
        self._now_ns = 0
        self._pace: Vector | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def launch(self, batch: Running, response: Response, now_ns: int) -> None:
        """A batch starts beside whatever runs."""
        self.advance(now_ns)
        n = len(self._keys)
        if n + 1 >= len(self._table):  # one more is kept for a candidate
            self._table = np.vstack([self._table, np.zeros_like(self._table)])
        deadline_ns = inf if batch.deadline_ns is None else batch.deadline_ns
        self._fill(n, response, batch.own, deadline_ns, batch.priority)
        self._keys.append(batch.key)
        self._pace = None

    def finish(self, key: BatchKey, now_ns: int) -> None:
        """The batch is gone; another takes its row."""
        self.advance(now_ns)
        i, last = self._keys.index(key), self._keys.pop()
        if last != key:
            self._keys[i] = last
            self._table[i] = self._table[len(self._keys)]
        self._pace = None

    def advance(self, now_ns: int) -> None:
        """Every batch has gone on at its pace since the last call."""
        if self._keys and now_ns != self._now_ns:
            self._column(_REMAINING)[:] -= (now_ns - self._now_ns) / self.pace()
        self._now_ns = now_ns

    def renew(self, response_of: Callable[[BatchKey], Response]) -> None:
        """The predictor has learned: from here on the batches go by these."""
        for i, key in enumerate(self._keys):
            response = response_of(key)
            self._table[i, :ROW] = response.row(self._table[i, _ADDS].tolist())
            self._table[i, _ALONE] = response.slowdown(NOBODY)
        self._pace = None

    def pace(self) -> Vector:
        """(n,) slowdown of each beside the others."""
        if self._pace is None:
            self._pace = slowdowns(self.responses, self.adds.sum(axis=0))
        return self._pace

    @property
    def responses(self) -> Responses:
        return Responses(self._table[: len(self._keys), :ROW])

    @property
    def adds(self) -> Matrix:
        """(n, 6) what each contributes to its neighbours."""
        return self._table[: len(self._keys), _ADDS]

    @property
    def remaining_ns(self) -> Vector:
        """(n,) of each one's solo latency, as of the last `advance`."""
        return np.maximum(self._column(_REMAINING), self._column(_LEAST))

    @property
    def due_ns(self) -> Vector:
        """(n,) from the last `advance` to each one's deadline, inf where there is none."""
        return self._column(_DEADLINE) - self._now_ns

    @property
    def priorities(self) -> Vector:
        return self._column(_PRIORITY)

    @property
    def alone(self) -> Vector:
        """(n,) slowdown of each without neighbours."""
        return self._column(_ALONE)

    def beside(self, candidate: Own, response: Response) -> tuple[Vector, Matrix, Responses]:
        """`remaining_ns`, `adds` and `responses` with one more row, last."""
        n = len(self._keys)
        self._fill(n, response, candidate, inf, 0)
        table = self._table[: n + 1]
        return np.maximum(table[:, _REMAINING], table[:, _LEAST]), table[:, _ADDS], Responses(table[:, :ROW])

    def _fill(self, i: int, response: Response, own: Own, deadline_ns: float, priority: int) -> None:
        load, adds = own.load, contribution(own.batch_size, own.load)
        self._table[i] = (
            *response.row(adds),
            *adds,
            load.solo_ns,
            _NEARLY_DONE * load.solo_ns,
            deadline_ns,
            priority,
            response.slowdown(NOBODY),
        )

    def _column(self, which: int) -> Vector:
        column: Vector = self._table[: len(self._keys), which]
        return column

    def check(self, running: dict[BatchKey, Running]) -> None:
        """The rows are the running batches'."""
        assert sorted(self._keys) == sorted(running)
        for key, adds in zip(self._keys, self.adds.tolist(), strict=True):
            assert tuple(adds) == contribution(running[key].rows, running[key].load)


def slowdowns(responses: Responses, sums: Vector) -> Vector:
    """(n,) where all that runs contributes `sums`."""
    found = responses.slowdowns(sums)
    return np.maximum(found, MIN_SLOWDOWN, out=found)
