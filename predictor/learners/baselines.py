"""Baselines: no interference, the mean so far, and the mean by number of co-runners."""

from __future__ import annotations

from typing import ClassVar

from predictor.features import Exposure, Own, check
from predictor.learners.learner import State, clipped

_COUNTS = 33
"""Numbers of co-runners that are told apart: 0 to 31, and more."""


class NoInterference:
    """Every batch takes its solo latency."""

    name: ClassVar[str] = "none"

    def predict_one(self, own: Own, seen: Exposure) -> float:
        check(own, seen)
        return 1.0

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        check(own, seen, slowdown)

    def state(self) -> State:
        return {}


class Mean:
    """The mean of all slowdowns so far."""

    name: ClassVar[str] = "mean"

    def __init__(self) -> None:
        self._samples, self._mean = 0, 1.0

    def predict_one(self, own: Own, seen: Exposure) -> float:
        check(own, seen)
        return clipped(self._mean)

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        check(own, seen, slowdown)
        self._samples += 1
        self._mean += (clipped(slowdown) - self._mean) / self._samples

    def state(self) -> State:
        return {"samples": self._samples, "mean": self._mean}


class CountMean:
    """The mean of the slowdowns with as many co-runners (their time mean, rounded)."""

    name: ClassVar[str] = "count"

    def __init__(self) -> None:
        self._samples = [0] * _COUNTS
        self._means = [1.0] * _COUNTS

    def predict_one(self, own: Own, seen: Exposure) -> float:
        check(own, seen)
        at = _slot(seen)
        if not self._samples[at]:  # the nearest count that was seen
            at = min((i for i, n in enumerate(self._samples) if n), key=lambda i: abs(i - at), default=at)
        return clipped(self._means[at])

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        check(own, seen, slowdown)
        at = _slot(seen)
        self._samples[at] += 1
        self._means[at] += (clipped(slowdown) - self._means[at]) / self._samples[at]

    def state(self) -> State:
        return {"samples": list(self._samples), "means": list(self._means)}


def _slot(seen: Exposure) -> int:
    return min(_COUNTS - 1, max(0, round(min(seen.sums[0], _COUNTS))))
