"""All that `isochrone` learns, and a Gaussian process, in one prediction: for evaluation, too slow to decide by.

It knows co-runners by name and exact co-locations again, where the form that decides launches knows sums alone.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from struct import Struct
from typing import ClassVar

import numpy as np

from predictor.features import Exposure, Own, check
from predictor.learners.fused_product import FusedLinearProduct
from predictor.learners.gaussian_process import VECTOR, FrozenFit, GaussianProcess
from predictor.learners.isochrone import REGRESSIONS, STEADY, Isochrone, Pending
from predictor.learners.log_linear import inputs
from predictor.learners.regression import Vector

_array, _SINGLE, _pack = np.frombuffer, np.float32, Struct(f"={VECTOR}f").pack
"""Floats to an array by way of bytes, in a third of the time of `np.array`."""


class IsochroneFull(Isochrone):
    """Slowdown of a batch by the whole mixture of experts, of constant size. Its state lacks the Gaussian process."""

    name: ClassVar[str] = "isochrone-full"

    def __init__(self) -> None:
        self._process = GaussianProcess()
        self._product = FusedLinearProduct(REGRESSIONS + 1)
        super().__init__()

    def predict_one(self, own: Own, seen: Exposure) -> float:
        check(own, seen)
        linear, process = self._product.look_up(_array(_pack(*self._vector(own, seen)), _SINGLE))
        linear[-1] += process
        mixed = self._residual_hedge.mix(self._refined(own, seen, self._expert_hedge.mix(self._experts(seen, linear))))
        return exp(self._within(mixed + self._drift_weight * self._drift))

    def refit(self) -> Callable[[], FrozenFit] | None:
        """Work of some 0.1 s for another thread, if it is due; what it returns goes to `install`."""
        if not self._process.due:
            return None
        return self._process.refit(self._regressions.weights[STEADY])

    def install(self, fit: FrozenFit) -> None:
        self._process.install(fit)
        self._product.install(fit)
        self._refresh()

    def _vector(self, own: Own, seen: Exposure) -> list[float]:
        return inputs(own, seen) + self._process.identity(own, seen)

    def _linear_experts(self, vectors: Vector) -> list[list[float]]:
        linear, processes = self._product.look_up_all(vectors)
        for y, process in zip(linear, processes, strict=True):
            y[-1] += process
        return linear

    def _learn_mixture(self, pending: list[Pending], vectors: Vector, truths: Vector) -> None:
        super()._learn_mixture(pending, vectors, truths)
        for vector, truth in zip(vectors, truths.tolist(), strict=True):
            self._process.learn(vector, truth)

    def _refresh(self) -> None:
        weights, fit = self._regressions.weights, self._process.fit
        self._product.set(np.vstack([weights, weights[STEADY] if fit is None else fit.weights]))
        super()._refresh()
