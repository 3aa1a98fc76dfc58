"""Timelines: the finishes of all running batches under mutual slowdown, one after the other.

Between two finishes each batch progresses at 1 / slowdown. On arrays, for many cases at once; no state.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from backend.scheduler.running_batch import MIN_SLOWDOWN, Column, RunningBatch
from predictor.slowdown_function import ROW, WIDTH, Matrix, SlowdownFunctions, Tensor, Vector

HORIZON = 2
"""Finishes that a timeline follows one by one. Later it keeps the co-runners as they are then: on a device with that
many lanes a lane that falls free is taken again, so a timeline that empties the device would be too hopeful."""
_ADDS, _SHARING = slice(ROW, ROW + WIDTH), ROW + WIDTH
_HEIGHT = ROW + WIDTH + 2
_NONE: Column = (*[0.0] * (_HEIGHT - 1), 1e18)
"""A batch that adds nothing and does not end."""


class Timelines:
    """The finishes of the running batches as they are at one instant, beside candidates launched then.

    core: of the candidates' lane, where lanes share cores.
    """

    def __init__(self, batches: Collection[RunningBatch], core: int | None = None) -> None:
        self._columns = np.array([batch.column() for batch in batches]).T
        self._cores = None if core is None else np.array([*(batch.core for batch in batches), core])

    def finishes(self, candidates: Sequence[Column | None]) -> Matrix:
        """(k, n + 1) nanoseconds from now to the finish of each batch, in a case per candidate, which comes last; None:
        no candidate.
        """
        table = np.empty((len(candidates), _HEIGHT, self._columns.shape[1] + 1))
        table[..., :-1] = self._columns
        table[..., -1] = [_NONE if candidate is None else candidate for candidate in candidates]
        sharing = None
        if self._cores is not None:
            there = [candidate is not None for candidate in candidates]
            sharing = CoreSharing(self._cores, table[:, _SHARING], there)
        return forecast_finishes(table[:, -1], table[:, _ADDS], SlowdownFunctions(table[:, :ROW]), sharing)


class CoreSharing:
    """The slowdown by sharing cores, in k cases of n + 1 batches, from finish to finish.

    cores: (n + 1,); weights: (k, n + 1), see `SlowdownFunction.sharing`; with_last: (k,) bools, False where the last
    batch is not there.
    """

    def __init__(self, cores: Vector, weights: Matrix, with_last: Sequence[bool]) -> None:
        self._same = (cores[:, None] == cores).astype(float)
        self._weights = weights
        self._sharers: Matrix = np.tile(self._same.sum(axis=1) - 1.0, (len(with_last), 1))
        self._sharers[~np.array(with_last)] -= self._same[-1]
        np.maximum(self._sharers, 0.0, out=self._sharers)

    def terms(self) -> Matrix:
        """(k, n + 1) terms of sharing in the exponent of each slowdown function."""
        found: Matrix = self._weights * np.log1p(self._sharers)
        return found

    def end(self, first: Sequence[int]) -> None:
        """(k,) indices of the batch that ends in each case."""
        self._sharers -= self._same[first]
        np.maximum(self._sharers, 0.0, out=self._sharers)


def forecast_finishes(
    remaining_ns: Matrix, contributions: Tensor, functions: SlowdownFunctions, sharing: CoreSharing | None = None
) -> Matrix:
    """(k, n) nanoseconds from now to each batch's finish, in k cases at once: many cost little more than one.

    remaining_ns: (k, n) of its solo latency; contributions: (k, WIDTH, n).
    """
    cases, count = remaining_ns.shape
    remaining, finishes = remaining_ns.copy(), np.empty((cases, count))
    sums = np.add.reduce(contributions, 2)
    now = [0.0] * cases
    for _ in range(min(count, HORIZON)):
        slow = _slowdowns(functions, sums, sharing)
        spans = remaining * slow
        first = spans.argmin(axis=1).tolist()
        step = [float(spans[case, column]) for case, column in enumerate(first)]
        # Of two that end together, rounding would leave the second a little less than nothing.
        remaining -= np.array(step)[:, None] / slow
        np.maximum(remaining, 0.0, out=remaining)
        for case, column in enumerate(first):  # few cases: number by number is sooner done than by arrays of indices
            now[case] += step[case]
            finishes[case, column] = now[case]
            sums[case] -= contributions[case, :, column]
            remaining[case, column] = np.inf
        if sharing is not None:
            sharing.end(first)
    if count > HORIZON:
        later = np.array(now)[:, None] + remaining * _slowdowns(functions, sums, sharing)
        np.copyto(finishes, later, where=remaining < np.inf)
    return finishes


def _slowdowns(functions: SlowdownFunctions, sums: Vector, sharing: CoreSharing | None) -> Vector:
    """(k, n) where all that runs contributes `sums`, (k, WIDTH)."""
    found = functions.slowdowns(sums, None if sharing is None else sharing.terms())
    return np.maximum(found, MIN_SLOWDOWN, out=found)
