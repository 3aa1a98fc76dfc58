"""When each running batch will finish: a timeline from finish to finish under mutual slowdown.

Pure arithmetic over `predictor.slowdown_function`: between two finishes each batch progresses at 1 / slowdown.
"""

from __future__ import annotations

import numpy as np

from backend.scheduler.core_sharing import Turns
from backend.scheduler.running_batches import slowdowns
from predictor.slowdown_function import Matrix, SlowdownFunctions, Tensor

HORIZON = 2
"""Finishes that the timeline follows one by one. Later it keeps the neighbours as they are then: on a device with that
many lanes a lane that falls free is taken again, so a timeline that empties the device would be too hopeful."""


def forecast_finishes(
    remaining_ns: Matrix, contributions: Tensor, responses: SlowdownFunctions, turns: Turns | None = None
) -> Matrix:
    """(k, n) nanoseconds from now to each batch's finish, in k cases at once: many cost little more than one.

    remaining_ns: (k, n) of its solo latency; contributions: (k, 6, n) to its neighbours.
    """
    cases, count = remaining_ns.shape
    case = np.arange(cases)
    remaining, finishes = remaining_ns.copy(), np.empty((cases, count))
    sums = contributions.sum(axis=2)
    now = np.zeros(cases)
    for _ in range(min(count, HORIZON)):
        slow = slowdowns(responses, sums, turns)
        spans = remaining * slow
        column = spans.argmin(axis=1)
        first = case, column
        step = spans[first]
        now += step
        finishes[first] = now
        sums -= contributions[case, :, column]
        if turns is not None:
            turns.leave(column)
        # Of two that end together, rounding would leave the second a little less than nothing.
        remaining -= step[:, None] / slow
        np.maximum(remaining, 0.0, out=remaining)
        remaining[first] = np.inf
    if count > HORIZON:
        later = now[:, None] + remaining * slowdowns(responses, sums, turns)
        np.copyto(finishes, later, where=remaining < np.inf)
    return finishes
