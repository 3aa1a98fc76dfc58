"""Ceiling of what a predictor could reach: trees that have seen the rest of the very log that they are tested on.

No scheduler could have them: they know batches that come later, and of each batch what is known only once it has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor  # type: ignore[import-untyped]
from sklearn.model_selection import KFold, cross_val_predict  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from predictor.features import CoRunner, exposure
from predictor.samples import Sample, co_runners_of, own_of

FOLDS = 10
_DEEPEST = 5
"""Shares of a batch's execution are told apart by so many co-runners at once, the last of that many or more."""


def ceiling(samples: Sequence[Sample], *, counting: bool = False) -> float:
    """MSE of slowdown, each tenth of the batches predicted from the other nine. Two samples at least.

    counting: they are told how many co-runners there were and how many of them came after the batch did. That is a
    clock: it tells how long the batch took, whether or not it held it up.
    """
    models = sorted({s.model for s in samples} | {c.model for s in samples for c in s.co_runners})
    rows = np.array([_row(s, models) + (_counts(s) if counting else []) for s in samples])
    truth = np.array([s.slowdown for s in samples])
    trees = HistGradientBoostingRegressor(max_iter=150, learning_rate=0.05, max_leaf_nodes=15, random_state=0)
    folds = KFold(min(FOLDS, len(samples)), shuffle=True, random_state=0)
    with threadpool_limits(1):  # so few rows: several threads would wait for each other ten times as long as they work
        predicted = cross_val_predict(trees, rows, truth, cv=folds)
    return float(np.mean((predicted - truth) ** 2))


def _row(sample: Sample, models: Sequence[str]) -> list[float]:
    """The batch, all that our learners see of its co-runners, and more: who they were, how many at once, when."""
    own, neighbours = own_of(sample), co_runners_of(sample)
    seen = exposure(own, neighbours)
    return [
        models.index(own.model),
        own.batch_size,
        own.load.solo_ns,
        *own.load.features,
        *seen.sums,
        *seen.overdraft,
        seen.sharing,
        *co_runner_shares(neighbours, models),
        sum(n.begin <= 0.0 for n in neighbours),
        sample.start_ns,
    ]


def _counts(sample: Sample) -> list[float]:
    """Counts of co-runners, and of those that came meanwhile: on its core, and elsewhere."""
    neighbours = co_runners_of(sample)
    came = [n for n in neighbours if n.begin > 0.0]
    return [float(sum(n.same_core == here for n in some)) for some in (neighbours, came) for here in (True, False)]


def co_runner_shares(neighbours: Sequence[CoRunner], models: Sequence[str]) -> list[float]:
    """Shares of the execution with none, one, two … co-runners, and with each model, by all its batches."""
    overlaps = dict.fromkeys(models, 0.0)
    for n in neighbours:
        overlaps[n.model] += n.end - n.begin
    return [*shares_by_count(neighbours), *overlaps.values()]


def shares_by_count(neighbours: Sequence[CoRunner]) -> NDArray[np.float64]:
    """(_DEEPEST + 1,) of the execution with none, one, two … co-runners."""
    changes = sorted([(n.begin, 1) for n in neighbours] + [(n.end, -1) for n in neighbours])
    shares = np.zeros(_DEEPEST + 1)
    at, count = 0.0, 0
    for instant, change in [*changes, (1.0, 0)]:
        shares[min(count, _DEEPEST)] += instant - at
        at, count = instant, count + change
    return shares
