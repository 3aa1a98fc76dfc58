"""Predictors that learn nothing: one without interference, and one that knows the simulated device."""

from __future__ import annotations

from math import expm1
from typing import ClassVar

from backend.simulation.contention import Truth
from predictor.features import Exposure, Own
from predictor.learners.learner import State
from predictor.slowdown_function import SlowdownFunction

NO_WEIGHTS = (0.0,) * 10
"""Weights of a slowdown function: no co-runner slows a batch."""


class Unaware:
    """Predictor without interference: every batch takes its profiled latency."""

    name: ClassVar[str] = "none"

    def __init__(self) -> None:
        self.revision = 0

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        return SlowdownFunction(own.load, 1.0, NO_WEIGHTS, logarithmic=False)

    def predict_one(self, own: Own, seen: Exposure) -> float:  # noqa: ARG002 - the contract's call
        return 1.0

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        pass

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        pass


class Oracle(Unaware):
    """Predictor that knows the simulated device."""

    name: ClassVar[str] = "oracle"

    def __init__(self, truth: Truth) -> None:
        super().__init__()
        self._truth = truth

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        return self._truth.slowdown_function(own)

    def predict_one(self, own: Own, seen: Exposure) -> float:
        return self._truth.slowdown_function(own).slowdown(seen.sums, expm1(seen.sharing))
