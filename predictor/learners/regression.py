"""Recursive least squares whose covariance stays bounded, and the state of arrays."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

MAX_GROWTH = 100.0
"""Bound of the covariance's trace, in that of the prior: forgetting inflates it where samples say nothing, so beyond it
nothing more is forgotten until samples have brought it down."""
STATE_MAX = 20.0
"""Bound of logarithms, and of weights of such, in a state that is restored: far beyond what samples teach, and within
what forecasts can be made from."""


class Regression:
    """y ≈ w·x with forgetting: the weights after each sample minimize Σ λ^age (y − w·x)² plus the prior's pull."""

    def __init__(self, prior: Vector, variance: Vector, forgetting: float) -> None:
        """prior, variance: (n,) mean and variance of the weights before any sample, in units of the noise's."""
        self.weights: Vector = prior.copy()
        self._covariance = np.diag(variance)
        self._variance = variance
        self._forgetting = forgetting
        self._max_trace = MAX_GROWTH * float(variance.sum())

    def learn(self, x: Vector, y: float) -> None:
        """One step, O(n²)."""
        covariance = self._covariance
        gain = covariance @ x
        forgetting = self._forgetting
        if forgetting < 1.0 and covariance.trace() > self._max_trace:
            forgetting = 1.0
        spread = float(x @ gain)
        if spread < 0.0:  # rounding made it indefinite: the covariance starts anew, the weights stay
            self._covariance = covariance = np.diag(self._variance)
            gain = covariance @ x
            spread = float(x @ gain)
        scale = spread + forgetting
        self.weights += gain * ((y - float(self.weights @ x)) / scale)
        # Symmetric to the last bit, as gain × gainᵀ is and each element takes the same steps as its mirror.
        covariance -= gain[:, None] * (gain / scale)
        if forgetting < 1.0:
            covariance /= forgetting

    def state(self) -> list[list[float]]:
        return [self.weights.tolist(), *self._covariance.tolist()]


def array_of(state: object, shape: tuple[int, ...], most: float = inf) -> Vector:
    """Raises ValueError where it is no array of finite numbers of this shape, each at most `most` in size."""
    try:
        array = np.array(state, dtype=np.float64)
    except (OverflowError, RecursionError, TypeError, ValueError):
        raise ValueError(f"an array of shape {shape} is expected") from None
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"finite numbers of shape {shape} are expected, got shape {array.shape}")
    if (np.abs(array) > most).any():
        raise ValueError(f"numbers from {-most:g} to {most:g} are expected, got {np.abs(array).max():g}")
    return array
