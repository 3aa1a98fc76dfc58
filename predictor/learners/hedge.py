"""A mixture of experts whose weights follow who was right of late (exponential weights, Freund & Schapire 1997)."""

from __future__ import annotations

from math import exp, isfinite
from operator import mul

from predictor.learners.regression import array_of

_WORST = 2.0
"""A loss is cut here, so that no single batch silences an expert."""


class Hedge:
    """weights ∝ exp(−rate · loss / the best's mean loss), over losses discounted by their age."""

    def __init__(self, experts: int, discount: float = 0.99, rate: float = 0.3) -> None:
        self._losses = [0.0] * experts
        self._age = 0.0
        self._discount, self._rate = discount, rate
        self.weights = [1.0 / experts] * experts

    def mix(self, predictions: list[float]) -> float:
        return float(sum(map(mul, self.weights, predictions)))

    def learn(self, predictions: list[float], truth: float) -> None:
        """`predictions` before the truth was known, both logarithms of slowdown."""
        discount = self._discount
        self._losses = losses = [
            discount * loss + (miss if (miss := abs(p - truth)) < _WORST else _WORST)
            for loss, p in zip(self._losses, predictions, strict=False)
        ]
        self._age = discount * self._age + 1.0
        best = min(losses)
        scale = self._rate / (best / self._age + 1e-4)
        raw = [exp(scale * (best - loss)) for loss in losses]
        total = sum(raw)
        self.weights = [r / total for r in raw]

    def state(self) -> list[list[float]]:
        return [[self._age, *self._losses], [0.0, *self.weights]]

    def restore(self, state: object) -> None:
        rows = array_of(state, (2, len(self._losses) + 1)).tolist()
        assert all(map(isfinite, rows[0]))
        self._age, *self._losses = rows[0]
        self.weights = rows[1][1:]
