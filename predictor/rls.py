"""The paper's online learner: recursive least squares on a batch's own and its neighbours' features.

arXiv 2512.18725, section 4: ŷ = wᵀx + b, with x the compute, L2 and DRAM shares of the batch and of what
runs beside it; here the neighbours' shares are their exact time mean (predictor/colocation.py), not a snapshot.
"""

from __future__ import annotations

from math import isfinite
from operator import mul

from predictor.workload import Load

Shares = tuple[float, float, float]
"""Shares of the device's peak, ordered as `predictor.workload.FEATURES`."""

_PRIOR_WEIGHTS = (1.0, 0.0, 0.0, 0.0, 0.3, 0.1, 0.3)
"""Before any sample: alone a batch takes its solo time, and neighbours cost in proportion to what they use."""
_PRIOR_VARIANCE = 1.0
_MAX_TRACE = 100.0 * _PRIOR_VARIANCE * len(_PRIOR_WEIGHTS)
"""Forgetting inflates the covariance where samples say nothing; above this trace nothing more is forgotten."""


class RlsPredictor:
    """Slowdown = measured execution / solo latency, linear in the features; state of constant size.

    The model is additive over co-runners, so a forecast needs two numbers of each batch only: `base`
    (its slowdown with nobody beside it) and `pressure` (what it adds to every other batch).
    """

    def __init__(self, forgetting: float = 0.995) -> None:
        if not 0.9 <= forgetting <= 1.0:
            raise ValueError(f"the forgetting factor must lie in 0.9..1.0, got {forgetting}")
        self._forgetting = forgetting
        self._weights: tuple[float, ...] = _PRIOR_WEIGHTS
        size = range(len(_PRIOR_WEIGHTS))
        # Plain lists: at this size their arithmetic takes a third of the time of an array library's calls.
        self._covariance = [[_PRIOR_VARIANCE if i == j else 0.0 for j in size] for i in size]
        self.samples = 0

    @property
    def weights(self) -> tuple[float, ...]:
        """Bias, own compute, l2, dram, neighbours' compute, l2, dram."""
        return self._weights

    def base(self, own: Load) -> float:
        """Slowdown of a batch that runs alone by the model (1.0 where the profile is right)."""
        w = self._weights
        return w[0] + w[1] * own.compute + w[2] * own.l2 + w[3] * own.dram

    def pressure(self, shares: Shares) -> float:
        """What neighbours with these summed shares add to a batch's slowdown: never less than nothing."""
        w = self._weights
        added = w[4] * shares[0] + w[5] * shares[1] + w[6] * shares[2]
        return added if added > 0.0 else 0.0

    def predict_one(self, own: Load, neighbours: Shares) -> float:
        """Slowdown (ratio, at least 0.5) of a batch beside neighbours with these mean summed shares."""
        return max(0.5, self.base(own) + self.pressure(neighbours))

    def learn_one(self, own: Load, neighbours: Shares, slowdown: float) -> None:
        """One RLS step with a bounded covariance. Raises ValueError on a slowdown that is not a positive number."""
        features = (1.0, *own.features, *neighbours)
        if not (all(map(isfinite, features)) and isfinite(slowdown) and slowdown > 0):
            raise ValueError(f"cannot learn from slowdown {slowdown} with features {features}")
        covariance = self._covariance
        gain = [sum(map(mul, row, features)) for row in covariance]
        trace = sum(row[i] for i, row in enumerate(covariance))
        forgetting = self._forgetting if trace < _MAX_TRACE else 1.0
        gain_scale = sum(map(mul, features, gain)) + forgetting
        step = (slowdown - sum(map(mul, self._weights, features))) / gain_scale
        self._weights = tuple([w + g * step for w, g in zip(self._weights, gain, strict=True)])
        # Symmetric to the last bit, as gain × gainᵀ is and each element takes the same steps as its mirror.
        self._covariance = [
            [(p - g * h / gain_scale) / forgetting for p, h in zip(row, gain, strict=True)]
            for row, g in zip(covariance, gain, strict=True)
        ]
        self.samples += 1
