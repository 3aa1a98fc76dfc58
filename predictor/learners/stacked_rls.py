"""Several recursive least squares side by side, in one set of array operations: cheaper than one after the other."""

from __future__ import annotations

import numpy as np

from predictor.learners.regression import MAX_GROWTH, Vector, array_of

_MIN_VARIANCE = 1e-12


class StackedRls:
    """y_i ≈ w_i·x_i, each with its own weights, inputs, target and forgetting factor; learns blocks of samples."""

    def __init__(self, prior: Vector, variance: Vector, forgetting: list[float]) -> None:
        """prior: (k, n) weights before any sample; variance: (k, n) of them, in units of the noise's."""
        self.weights: Vector = prior.copy()
        self._prior: Vector = np.stack([np.diag(v) for v in variance])
        self._covariance: Vector = self._prior.copy()
        self._forgetting = np.array(forgetting)
        self._max_trace = MAX_GROWTH * variance.sum(axis=1)

    def learn(self, x: Vector, y: Vector) -> None:
        """x: (k, b, n), y: (k, b): b samples at once, forgetting before them as for each. O(k n² b)."""
        covariance, size = self._covariance, x.shape[1]
        self._forget(size)
        gain = np.matmul(covariance, x.transpose(0, 2, 1))
        spread = np.matmul(x, gain)
        spread += np.eye(size)
        error = y - np.matmul(x, self.weights[:, :, None])[:, :, 0]
        solved = np.linalg.solve(spread, np.concatenate([gain.transpose(0, 2, 1), error[:, :, None]], axis=2))
        self.weights += np.matmul(gain, solved[:, :, -1:])[:, :, 0]
        covariance -= np.matmul(gain, solved[:, :, :-1])
        covariance += covariance.transpose(0, 2, 1).copy()
        covariance *= 0.5
        indefinite = (np.einsum("ijj->ij", covariance) < _MIN_VARIANCE).any(axis=1)
        if indefinite.any():  # rounding: the covariance starts anew, the weights stay
            covariance[indefinite] = self._prior[indefinite]

    def _forget(self, samples: int) -> None:
        for i, forgetting in enumerate(self._forgetting.tolist()):
            if forgetting < 1.0 and self._covariance[i].trace() < self._max_trace[i]:
                self._covariance[i] *= forgetting**-samples

    def state(self) -> list[object]:
        return [self.weights.tolist(), self._covariance.tolist()]

    def restore(self, state: object) -> None:
        """Raises ValueError, unchanged, on what is no state of this form."""
        if not isinstance(state, list) or len(state) != 2:
            raise ValueError("weights and covariances are expected")
        weights, covariance = array_of(state[0], self.weights.shape), array_of(state[1], self._covariance.shape)
        self.weights, self._covariance = weights, covariance
