"""When each running batch will finish: a timeline from finish to finish under mutual slowdown.

Pure arithmetic over `predictor.response`: between two finishes each batch progresses at 1 / slowdown.
"""

from __future__ import annotations

import numpy as np

from backend.scheduler.progress import slowdowns
from predictor.response import Matrix, Responses, Vector

HORIZON = 2
"""Finishes that the timeline follows one by one. Later it keeps the neighbours as they are then: on a device with that
many lanes a lane that falls free is taken again, so a timeline that empties the device would be too hopeful."""


def forecast_finishes(remaining_ns: Vector, contributions: Matrix, responses: Responses) -> Vector:
    """(n,) nanoseconds from now to each batch's finish.

    remaining_ns: (n,) of its solo latency; contributions: (n, 6) to its neighbours.
    """
    count = len(remaining_ns)
    remaining, finishes = remaining_ns.copy(), np.empty(count)
    sums = contributions.sum(axis=0)
    now = 0.0
    for _ in range(min(count, HORIZON)):
        slow = slowdowns(responses, sums)
        spans = remaining * slow
        i = int(spans.argmin())
        step = float(spans[i])
        now += step
        finishes[i] = now
        sums -= contributions[i]
        # Of two that end together, rounding would leave the second a little less than nothing.
        remaining -= step / slow
        np.maximum(remaining, 0.0, out=remaining)
        remaining[i] = np.inf
    if count > HORIZON:
        there = remaining < np.inf
        finishes[there] = now + (remaining * slowdowns(responses, sums))[there]
    return finishes
