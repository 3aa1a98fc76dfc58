"""The contract of every learner."""

from __future__ import annotations

from typing import ClassVar, Protocol

from predictor.features import Exposure, Own
from predictor.slowdown_function import SLOWDOWN_MAX, SLOWDOWN_MIN, SlowdownFunction, Sums

State = dict[str, object]
"""A learner in numbers, strings, lists and dicts of them."""


class Learner(Protocol):
    """Slowdown (ratio) of a batch by its co-runners. State constant in size; the same calls, the same answers."""

    name: ClassVar[str]

    def predict_one(self, own: Own, seen: Exposure) -> float:
        """Measured execution / solo execution, within `SLOWDOWN_MIN`..`SLOWDOWN_MAX`.

        Raises ValueError on features that are no finite numbers.
        """

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        """From a finished batch. Raises ValueError, unchanged, where anything is no finite number."""

    def state(self) -> State:
        """All that it learned."""


class Forecaster(Learner, Protocol):
    """A learner that a scheduler can forecast with."""

    revision: int
    """Goes up whenever slowdown functions or contributions change."""

    def contribution(self, own: Own) -> Sums:
        """(WIDTH,) of such a batch to its co-runners' slowdowns, as of the present revision."""

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        """This batch's slowdown over its co-runners' contributions, as of the present revision."""


def clipped(slowdown: float) -> float:
    return min(SLOWDOWN_MAX, max(SLOWDOWN_MIN, slowdown))
