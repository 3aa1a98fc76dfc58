"""The paper's three: ŷ = wᵀx + b on own and co-runners' compute, L2 and DRAM, offline, by SGD and by RLS.

arXiv 2512.18725, section 4 (the linear form is gpulets', Choi et al., ATC'22). All three start from the same weights.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from predictor.features import Exposure, Own, check
from predictor.learners.learner import State, clipped
from predictor.learners.regression import Regression, Vector
from predictor.slowdown_function import SHARES, ZERO_SUMS, SlowdownFunction, Sums, shares_only

PRIOR = (1.0, 0.0, 0.0, 0.0, 0.3, 0.1, 0.3)
"""b, own compute, l2, dram, co-runners' compute, l2, dram, before any sample."""
_VARIANCE = np.ones(len(PRIOR))
_FIRST = 200
"""Batches that offline learning takes as its training set where it is given none."""
_SHARE_MAX = 64.0
"""Bound of sums of shares: no device runs so much at once."""


def inputs(own: Own, seen: Exposure) -> Vector:
    """(7,) the paper's x with a 1 for the bias. Raises ValueError on what is no finite number."""
    check(own, seen)
    x = (1.0, *own.load.features, *seen.sums[1:4])
    return np.array([min(_SHARE_MAX, max(-_SHARE_MAX, v)) for v in x])


def fit(samples: list[tuple[Own, Exposure, float]]) -> Vector:
    """(7,) least squares on a training set, with the prior's pull where it says nothing."""
    regression = Regression(np.array(PRIOR), _VARIANCE, 1.0)
    for own, seen, slowdown in samples:
        regression.learn(inputs(own, seen), clipped(slowdown))
    return regression.weights


class _Linear:
    def __init__(self) -> None:
        self._weights: Vector = np.array(PRIOR)
        self.revision = 0

    def start(self, weights: Vector) -> None:
        """From a training set: see `fit`."""
        self._weights = weights.copy()
        self.revision += 1

    def predict_one(self, own: Own, seen: Exposure) -> float:
        return clipped(float(self._weights @ inputs(own, seen)))

    def contribution(self, own: Own) -> Sums:
        return shares_only(own)

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        b, c, l2, dram, *co_runners = self._weights.tolist()
        base = b + c * own.load.compute + l2 * own.load.l2 + dram * own.load.dram
        return SlowdownFunction(base, 1.0, (*co_runners, *ZERO_SUMS[SHARES:]))


class Offline(_Linear):
    """Fitted once, then static."""

    name: ClassVar[str] = "offline"

    def __init__(self) -> None:
        super().__init__()
        self._regression = Regression(self._weights, _VARIANCE, 1.0)
        self._left = _FIRST

    def start(self, weights: Vector) -> None:
        super().start(weights)
        self._left = 0

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        check(own, seen, slowdown)
        if self._left:
            self._left -= 1
            self._regression.learn(inputs(own, seen), clipped(slowdown))
            self._weights = self._regression.weights
            self.revision += 1

    def state(self) -> State:
        return {"weights": self._weights.tolist(), "left": self._left, "regression": self._regression.state()}


class Sgd(_Linear):
    """Plain stochastic gradient descent; the step shrinks where the features are so large that it would overshoot."""

    name: ClassVar[str] = "sgd"

    def __init__(self, step: float = 0.05) -> None:
        super().__init__()
        self._step = step

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        check(own, seen, slowdown)
        x = inputs(own, seen)
        step = min(self._step, 0.5 / float(x @ x))
        self._weights = self._weights + step * (clipped(slowdown) - float(self._weights @ x)) * x
        self.revision += 1

    def state(self) -> State:
        return {"weights": self._weights.tolist()}


class Rls(_Linear):
    """Recursive least squares. The paper names no forgetting factor: 1 by default."""

    name: ClassVar[str] = "rls"

    def __init__(self, forgetting: float = 1.0) -> None:
        super().__init__()
        self._forgetting = forgetting
        self._regression = Regression(self._weights, _VARIANCE, forgetting)
        self._weights = self._regression.weights

    def start(self, weights: Vector) -> None:
        self._regression = Regression(weights, _VARIANCE, self._forgetting)
        self._weights = self._regression.weights
        self.revision += 1

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        check(own, seen, slowdown)
        self._regression.learn(inputs(own, seen), clipped(slowdown))
        self.revision += 1

    def state(self) -> State:
        return {"regression": self._regression.state()}
