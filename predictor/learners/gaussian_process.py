"""A Gaussian process of what linear forms miss, on a bounded window of samples; between two fits it is frozen.

Rasmussen & Williams (2006), algorithm 2.1; scales by leave-one-out error, equation 5.12.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictor.features import Exposure, Own
from predictor.learners.log_linear import PLAIN, WIDTH
from predictor.learners.regression import Vector

Narrow = NDArray[np.float32]

WINDOW = 384
_SLOTS = 16
"""Models that are told apart; of more, two share a slot."""
_LENGTHS = np.array([0.6] * 3 + [0.3] * 2 + [1.0, 0.8, 0.8, 0.8, 0.5, 0.5] + [0.5] * 3 + [0.3])
"""Length scales, by column of `PLAIN`."""
_NEAR = len(_LENGTHS)
_ROW = _NEAR + 2 * _SLOTS
"""Plain inputs, one-hot own model, overlaps by co-runners' model."""
VECTOR = PLAIN + _ROW + 1
"""All of `inputs`, then `GaussianProcess.identity`."""
_LENGTH_STEPS = (0.35, 0.6, 1.0, 1.7, 3.0)
_NOISE_STEPS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_IDENTITY_STEPS = (0.1, 0.25, 0.5, 0.9, 1.5)
_FEW = 24


@dataclass(frozen=True)
class KernelScales:
    """Indexes into the steps of length, noise and of the distance between two different models."""

    length: int = 2
    noise: int = 2
    identity: int = 2

    def factors(self) -> Vector:
        """(_ROW,) factors of a row before distances are taken."""
        near = 1.0 / (_LENGTHS * _LENGTH_STEPS[self.length])
        return np.concatenate([near, np.full(2 * _SLOTS, _IDENTITY_STEPS[self.identity])])

    def padded(self) -> Vector:
        """(_ROW + 1,) the same, and 1."""
        return np.append(self.factors(), 1.0)

    def alternatives(self, turn: int) -> list[KernelScales]:
        """Two alternatives, another direction each turn."""
        names = (("length", _LENGTH_STEPS), ("noise", _NOISE_STEPS), ("identity", _IDENTITY_STEPS))
        name, steps = names[turn % 3]
        at = getattr(self, name)
        values = {"length": self.length, "noise": self.noise, "identity": self.identity}
        return [KernelScales(**{**values, name: i}) for i in (at - 1, at + 1) if 0 <= i < len(steps)]


@dataclass(frozen=True)
class FrozenFit:
    """A frozen predictor: linear weights, (_ROW + 1, n) scaled rows with minus their half norms last, (n,) alpha.

    With z, a vector from `PLAIN` on times `factors`: w·x + Σ alpha · exp(z·rows − (|z|² − 1) / 2), as computed by
    `FusedLinearProduct`.
    """

    scales: KernelScales
    weights: Vector
    rows: Narrow
    alpha: Narrow
    factors: Narrow


class GaussianProcess:
    """A window of samples and the latest fit. Random replacement keeps old samples with fading odds."""

    def __init__(self) -> None:
        self._vectors = np.zeros((WINDOW, VECTOR))
        self._y = np.zeros(WINDOW)
        self._filled = self._since = self._turn = 0
        self._random = 1
        self._slots: dict[str, int] = {}
        self.fit: FrozenFit | None = None

    def identity(self, own: Own, seen: Exposure) -> list[float]:
        """(2 · _SLOTS + 1,) that follows `inputs` in a vector: slots of the own and the co-runners' models, and a 1."""
        found = [0.0] * (2 * _SLOTS + 1)
        found[-1] = 1.0
        slots = self._slots
        found[self._slot(own.model)] = 1.0
        for model, overlap in seen.overlaps:
            slot = slots.get(model)
            found[_SLOTS + (self._slot(model) if slot is None else slot)] += overlap if overlap < 16.0 else 16.0
        return found

    def learn(self, vector: Vector, y: float) -> None:
        """vector: (VECTOR,) of `inputs` and `identity`; y: log slowdown."""
        if self._filled < WINDOW:
            at, self._filled = self._filled, self._filled + 1
        else:
            self._random = (self._random * 6364136223846793005 + 1442695040888963407) % 2**64
            at = (self._random >> 33) % WINDOW
        self._vectors[at], self._y[at] = vector, y
        self._since += 1

    @property
    def due(self) -> bool:
        return self._filled >= _FEW and self._since >= max(16, min(200, self._filled // 4))

    def refit(self, weights: Vector) -> Callable[[], FrozenFit]:
        """Work of some 0.1 s, on copies: the window's best of the present scales and two alternatives."""
        n = self._filled
        vectors, y, weights = self._vectors[:n].copy(), self._y[:n].copy(), weights.copy()
        now = self.fit.scales if self.fit else KernelScales()
        candidates = (now, *now.alternatives(self._turn))
        return lambda: _best(candidates, vectors, y, weights)

    def install(self, fit: FrozenFit) -> None:
        self.fit, self._since, self._turn = fit, 0, self._turn + 1

    def _slot(self, model: str) -> int:
        slot = self._slots.get(model)
        if slot is None:
            slot = len(self._slots) % _SLOTS
            if len(self._slots) < 4 * _SLOTS:
                self._slots[model] = slot
        return slot


def _best(candidates: Sequence[KernelScales], vectors: Vector, y: Vector, weights: Vector) -> FrozenFit:
    rows, rest = vectors[:, PLAIN:-1], y - vectors[:, :WIDTH] @ weights
    _, scales, alpha = min((_fitted(scales, rows, rest) for scales in candidates), key=lambda t: t[0])
    scaled = (rows * scales.factors()).T
    full = np.vstack([scaled, -0.5 * (scaled * scaled).sum(axis=0)])
    return FrozenFit(scales, weights, *(np.ascontiguousarray(a, np.float32) for a in (full, alpha, scales.padded())))


def _fitted(scales: KernelScales, rows: Vector, y: Vector) -> tuple[float, KernelScales, Vector]:
    """Leave-one-out error and α = (K + σ²I)⁻¹ y."""
    scaled = rows * scales.factors()
    half = 0.5 * (scaled * scaled).sum(axis=1)
    exponent = scaled @ scaled.T - half[:, None] - half
    kernel = np.exp(np.minimum(exponent, 0.0, out=exponent), out=exponent)
    np.fill_diagonal(kernel, 1.0 + _NOISE_STEPS[scales.noise])
    inverse = np.linalg.inv(kernel)
    alpha = inverse @ y
    return float(np.abs(alpha / inverse.diagonal()).mean()), scales, alpha
