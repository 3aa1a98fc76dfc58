"""A mixture of experts whose weights follow their latest losses (exponential weights, Freund & Schapire 1997)."""

from __future__ import annotations

from math import exp
from operator import mul

import numpy as np

from predictor.learners.regression import Vector, array_of

_WORST = 2.0
"""Bound of one loss, so that no single batch silences an expert."""


class Hedge:
    """weights ∝ exp(−rate · loss / the best's mean loss), over losses discounted by their age."""

    def __init__(self, experts: int, discount: float = 0.99, rate: float = 0.3) -> None:
        self._losses = [0.0] * experts
        self._age = 0.0
        self._discount, self._rate = discount, rate
        self.weights = [1.0 / experts] * experts

    def mix(self, predictions: list[float]) -> float:
        mixed: float = sum(map(mul, self.weights, predictions))
        return mixed

    def learn(self, predictions: list[list[float]], truths: Vector) -> None:
        """predictions: (b, experts), made before the truths were known; truths: (b,); all logarithms of slowdown."""
        misses = np.subtract(predictions, truths[:, None])
        np.minimum(np.abs(misses, out=misses), _WORST, out=misses)
        size = len(truths)
        ages = self._discount ** np.arange(size - 1, -1, -1)
        faded = self._discount**size
        self._losses = losses = [
            faded * loss + miss for loss, miss in zip(self._losses, ages.dot(misses).tolist(), strict=True)
        ]
        self._age = faded * self._age + float(ages.sum())
        best = min(losses)
        scale = self._rate / (best / self._age + 1e-4)
        raw = [exp(scale * (best - loss)) for loss in losses]
        total = sum(raw)
        self.weights = [r / total for r in raw]

    def state(self) -> list[list[float]]:
        return [[self._age, *self._losses], [0.0, *self.weights]]

    def restore(self, state: object) -> None:
        rows = array_of(state, (2, len(self._losses) + 1)).tolist()
        self._age, *self._losses = rows[0]
        self.weights = rows[1][1:]
