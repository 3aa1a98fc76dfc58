"""Contention in a simulation, how much co-located batches slow each other down: learned from samples, or a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from predictor.features import Own
from predictor.learners.isochrone import Isochrone
from predictor.samples import Sample, training_sample_of
from predictor.slowdown_function import SHARES, ZERO_SUMS, SlowdownFunction, Sums, shares_only


class Truth(Protocol):
    """The device: a batch's slowdown by co-runners, and how single batches differ from it."""

    @property
    def residuals(self) -> Sequence[float]:
        """Measured / expected, drawn from for each batch."""

    def contribution(self, own: Own) -> Sums: ...

    def slowdown_function(self, own: Own) -> SlowdownFunction: ...


@dataclass(frozen=True)
class LinearContention:
    """(1 + weights · the co-runners' summed compute, l2 and dram) · (1 + others on its core)^sharing; all zero: no
    interference.
    """

    weights: tuple[float, float, float] = (0.0, 0.0, 0.0)
    residuals: Sequence[float] = (1.0,)
    sharing: float = 0.0

    def contribution(self, own: Own) -> Sums:
        return shares_only(own)

    def slowdown_function(self, own: Own) -> SlowdownFunction:  # noqa: ARG002 - the contract's call
        return SlowdownFunction(1.0, 1.0, self.weights + ZERO_SUMS[SHARES:], sharing=self.sharing)


@dataclass(frozen=True)
class LearnedContention:
    """State of a learner after recorded batches, frozen."""

    learner: Isochrone
    residuals: Sequence[float]

    def contribution(self, own: Own) -> Sums:
        return self.learner.contribution(own)

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        return self.learner.slowdown_function(own)


def learned(samples: Sequence[Sample]) -> LearnedContention:
    """Learns from batches of the device that is to be simulated, in the order of their start.

    Residuals are of what is learned in the end, scaled: whatever it is off by, batches like those recorded take as long
    as they did in sum.
    """
    learner = Isochrone()
    lessons = [training_sample_of(sample) for sample in samples]
    for lesson in lessons:
        learner.learn_one(*lesson)
    learner.reset_drift()
    if not lessons:
        return LearnedContention(learner, [1.0])
    solo_ns = np.array([sample.solo_ns for sample in samples])
    measured = np.array([slowdown for _, _, slowdown in lessons])
    expected = np.array([learner.predict_one(own, seen) for own, seen, _ in lessons])
    residuals = measured / expected
    scale = float(solo_ns @ measured / (solo_ns @ expected * residuals.mean()))
    return LearnedContention(learner, (residuals * scale).tolist())
