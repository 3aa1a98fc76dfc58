"""Two numbers per model and batch size, fitted to one machine's samples from a normal prior over all of them.

A *kind* is a model and a batch size. With a the log sensitivities and b the log pressures, one of each per kind, and a
batch of kind i beside co-runners j for t_j of its time,

    log s = log(1 + Σ_j t_j · exp(a_i + b_j + r · d_ij + δ_ij)) + noise

d is what pairs differ by on other machines, r how much of it holds here. (a, b, r) is jointly normal beforehand, so
that what kinds have in common is learned from any of them; δ is independent by pair. Maximum a posteriori by Gauss and
Newton, the spread around it by Laplace.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_STEPS_MAX, _STEP_MAX, _STEP_MIN = 12, 1.5, 5e-3
_LOG_MAX = 8.0


class Observations(NamedTuple):
    """m combinations of n kinds. own: (m,) indices; overlaps: (m, n); log_slowdowns, counts: (m,)."""

    own: NDArray[np.int64]
    overlaps: Array
    log_slowdowns: Array
    counts: Array


class Prior(NamedTuple):
    """mean: (2n + 1,) of a, b, r; covariance: (2n + 1, 2n + 1); pairs: (n, n), d by own kind and co-runner's.
    pair_variance: of δ; noise: variance of a sample.
    """

    mean: Array
    covariance: Array
    pairs: Array
    pair_variance: float
    noise: float


class Posterior(NamedTuple):
    """mean: (2n + 1,) of a, b, r; covariance: (2n + 1, 2n + 1), C; pairs: (n, n), r · d + δ.

    With P the prior's covariance, pull: (2n + 1,), P⁻¹ (mean − prior's); learned: (2n + 1, 2n + 1), P⁻¹ − P⁻¹ C P⁻¹.
    Both are 0 where nothing was learned, and say what is to be expected of kinds that were not fitted.
    """

    mean: Array
    covariance: Array
    pairs: Array
    pull: Array
    learned: Array


def fit(prior: Prior, seen: Observations, start: Array | None = None) -> Posterior:
    """start: (2n + 1,), a mean that is close."""
    if not len(seen.own):
        nothing = np.zeros_like(prior.mean)
        return Posterior(prior.mean, prior.covariance, prior.mean[-1] * prior.pairs, nothing, np.diag(nothing))
    precision = np.linalg.inv(prior.covariance)
    differs = prior.pairs[seen.own]
    z = prior.mean.copy() if start is None else start.copy()
    for _ in range(_STEPS_MAX):
        expected, shares, jacobian = _linear(z, seen, differs)
        weights = 1.0 / _variances(prior, shares, seen.counts)
        information = (jacobian * weights[:, None]).T @ jacobian + precision
        slope = jacobian.T @ (weights * (seen.log_slowdowns - expected)) - precision @ (z - prior.mean)
        step = np.linalg.solve(information, slope)
        most = float(np.abs(step).max())
        z = z + step * min(1.0, _STEP_MAX / max(most, 1e-12))
        if most < _STEP_MIN:
            break
    expected, shares, jacobian = _linear(z, seen, differs)
    variances = _variances(prior, shares, seen.counts)
    information = (jacobian / variances[:, None]).T @ jacobian + precision
    pairs = z[-1] * prior.pairs
    np.add.at(pairs, seen.own, prior.pair_variance * shares * ((seen.log_slowdowns - expected) / variances)[:, None])
    covariance = np.linalg.inv(information)
    learned = precision - precision @ covariance @ precision
    return Posterior(z, covariance, pairs, precision @ (z - prior.mean), learned)


def _linear(z: Array, seen: Observations, differs: Array) -> tuple[Array, Array, Array]:
    """Expected log slowdowns (m,), their slopes by δ (m, n) and by (a, b, r) (m, 2n + 1)."""
    m, n = seen.overlaps.shape
    exponent = z[seen.own][:, None] + z[None, n : 2 * n] + z[-1] * differs
    adds = seen.overlaps * np.exp(np.minimum(exponent, _LOG_MAX))
    total = adds.sum(axis=1)
    shares = adds / (1.0 + total)[:, None]
    jacobian = np.zeros((m, 2 * n + 1))
    jacobian[np.arange(m), seen.own] = shares.sum(axis=1)
    jacobian[:, n : 2 * n] = shares
    jacobian[:, -1] = (shares * differs).sum(axis=1)
    return np.log1p(total), shares, jacobian


def _variances(prior: Prior, shares: Array, counts: Array) -> Array:
    """(m,) of the mean log slowdown of a combination, δ included."""
    variances: Array = prior.noise / counts + prior.pair_variance * (shares * shares).sum(axis=1)
    return variances
