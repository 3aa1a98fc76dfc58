"""All that is linear in a sample's vector, in one product: regressions, and exponents of the Gaussian process."""

from __future__ import annotations

import numpy as np

from predictor.learners.gaussian_process import VECTOR, FrozenFit, Narrow
from predictor.learners.log_linear import PLAIN, WIDTH
from predictor.learners.regression import Vector

_exp = np.exp


class FusedLinearProduct:
    """Single precision: predictions are good to three digits at best."""

    def __init__(self, regressions: int) -> None:
        self._regressions = regressions
        self.install(None)

    def install(self, fit: FrozenFit | None) -> None:
        """Takes a fit of the Gaussian process, None: without one; the regressions' weights are to be set anew."""
        k, n = self._regressions, 0 if fit is None else len(fit.alpha)
        self._columns: Narrow = np.zeros((VECTOR, k + n), np.float32)
        self._alpha: Narrow | None = None
        if fit is not None:
            self._columns[PLAIN:, k:] = fit.factors[:, None] * fit.rows
            self._alpha = fit.alpha
            self._squares = -0.5 * fit.factors**2
            self._squares[-1] = 0.0

    def set(self, weights: Vector) -> None:
        """weights: (regressions, WIDTH)."""
        self._columns[:WIDTH, : self._regressions] = weights.T

    def look_up(self, vector: Narrow) -> tuple[list[float], float]:
        """Each regression's y, and the Gaussian process's addition, of a (VECTOR,)."""
        y = vector.dot(self._columns)
        linear = y[: self._regressions].tolist()
        if self._alpha is None:
            return linear, 0.0
        plain, exponent = vector[PLAIN:], y[self._regressions :]
        exponent += (plain * plain).dot(self._squares)
        return linear, _exp(exponent, exponent).dot(self._alpha).item()

    def look_up_all(self, vectors: Vector) -> tuple[list[list[float]], list[float]]:
        """`look_up` of (b, VECTOR)."""
        narrow = vectors.astype(np.float32)
        y = narrow.dot(self._columns)
        linear = y[:, : self._regressions].tolist()
        if self._alpha is None:
            return linear, [0.0] * len(linear)
        plain, exponent = narrow[:, PLAIN:], y[:, self._regressions :]
        exponent += (plain * plain).dot(self._squares)[:, None]
        return linear, np.exp(exponent, exponent).dot(self._alpha).tolist()
