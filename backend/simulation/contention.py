"""How much co-located batches slow each other down in a simulation: learned from samples, or given as a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1
from typing import Protocol

import numpy as np

from predictor.features import Own, exposure
from predictor.learners.isochrone import Isochrone
from predictor.response import Response
from predictor.samples import Sample, neighbours_of, own_of

_RESIDUALS_AFTER = 0.5
"""What the first half of the samples taught says how far the second half is from what was expected."""


class Truth(Protocol):
    """The device: a batch's slowdown beside others, and how single batches differ from it."""

    @property
    def residuals(self) -> Sequence[float]:
        """Measured / expected, drawn from for each batch."""

    def response(self, own: Own) -> Response: ...


@dataclass(frozen=True)
class Linear:
    """1 + weights · the neighbours' summed compute, l2 and dram + sharing · log(1 + others on its core); all zero: no
    interference.
    """

    weights: tuple[float, float, float] = (0.0, 0.0, 0.0)
    residuals: Sequence[float] = (1.0,)
    sharing: float = 0.0

    def response(self, own: Own) -> Response:
        weights = (0.0, *self.weights, *(0.0,) * 6)
        return Response(own.load, 1.0, weights, logarithmic=False, sharing=self.sharing)


@dataclass(frozen=True)
class Learned:
    """What a learner made of recorded batches, frozen."""

    learner: Isochrone
    residuals: Sequence[float]

    def response(self, own: Own) -> Response:
        return self.learner.response(own)


def learned(samples: Sequence[Sample]) -> Learned:
    """From batches of the device that is to be simulated, in the order of their start."""
    learner = Isochrone()
    residuals = []
    for i, sample in enumerate(samples):
        own = own_of(sample)
        seen = exposure(own, neighbours_of(sample))
        if i >= _RESIDUALS_AFTER * len(samples):
            residuals.append(sample.slowdown / learner.response(own).slowdown(seen.sums, expm1(seen.sharing)))
        learner.learn_one(own, seen, sample.slowdown)
    learner.state()  # what waits to be learned as a block is
    learner.calm()
    spread = np.array(residuals or [1.0])
    return Learned(learner, (spread / np.exp(np.mean(np.log(spread)))).tolist())
