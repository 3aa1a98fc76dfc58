"""Contention in a simulation, how much co-located batches slow each other down: learned from samples, or a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1
from typing import Protocol

from predictor.features import Own
from predictor.learners.isochrone import Isochrone
from predictor.samples import Sample, training_sample_of
from predictor.slowdown_function import SlowdownFunction


class Truth(Protocol):
    """The device: a batch's slowdown by co-runners, and how single batches differ from it."""

    @property
    def residuals(self) -> Sequence[float]:
        """Measured / expected, drawn from for each batch."""

    def slowdown_function(self, own: Own) -> SlowdownFunction: ...


@dataclass(frozen=True)
class LinearContention:
    """1 + weights · the co-runners' summed compute, l2 and dram + sharing · log(1 + others on its core); all zero: no
    interference.
    """

    weights: tuple[float, float, float] = (0.0, 0.0, 0.0)
    residuals: Sequence[float] = (1.0,)
    sharing: float = 0.0

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        weights = (0.0, *self.weights, *(0.0,) * 6)
        return SlowdownFunction(own.load, 1.0, weights, logarithmic=False, sharing=self.sharing)


@dataclass(frozen=True)
class LearnedContention:
    """State of a learner after recorded batches, frozen."""

    learner: Isochrone
    residuals: Sequence[float]

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        return self.learner.slowdown_function(own)


def learned(samples: Sequence[Sample]) -> LearnedContention:
    """Learns from batches of the device that is to be simulated, in the order of their start.

    Residuals are of what is learned in the end: whatever it is off by, simulated batches take as long as recorded ones
    in the mean.
    """
    learner = Isochrone()
    lessons = [training_sample_of(sample) for sample in samples]
    for lesson in lessons:
        learner.learn_one(*lesson)
    learner.state()  # what waits to be learned as a block is
    learner.reset_drift()
    residuals = [
        slowdown / learner.slowdown_function(own).slowdown(seen.sums, expm1(seen.sharing))
        for own, seen, slowdown in lessons
    ]
    return LearnedContention(learner, residuals or [1.0])
