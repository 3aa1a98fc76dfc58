"""Predictors that learn nothing: one without interference, and one that knows the simulated device."""

from __future__ import annotations

from math import expm1
from typing import ClassVar

from backend.simulation.contention import Truth
from predictor.features import Exposure, Own
from predictor.learners.learner import State
from predictor.slowdown_function import SlowdownFunction, Sums, shares_only, sums_of


class Unaware:
    """Predictor without interference: every batch takes its profiled latency."""

    name: ClassVar[str] = "none"

    def __init__(self) -> None:
        self.revision = 0

    def contribution(self, own: Own) -> Sums:
        return shares_only(own)

    def slowdown_function(self, own: Own) -> SlowdownFunction:  # noqa: ARG002 - the contract's call
        return SlowdownFunction(1.0)

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

    def contribution(self, own: Own) -> Sums:
        return self._truth.contribution(own)

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        return self._truth.slowdown_function(own)

    def predict_one(self, own: Own, seen: Exposure) -> float:
        return self.slowdown_function(own).slowdown(sums_of(seen, self.contribution), expm1(seen.sharing))
