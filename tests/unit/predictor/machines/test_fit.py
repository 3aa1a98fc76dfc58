"""The fit of sensitivities and pressures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from predictor.machines.fit import Observations, Prior, fit

N = 4
TRUE = np.array([-0.5, 0.0, 0.4, -1.0, 0.3, -0.3, 0.6, -0.6])


def prior(pairs: NDArray[np.float64] | None = None, of_pairs: float = 1e-6) -> Prior:
    covariance = np.diag([1.0] * 2 * N + [of_pairs])
    return Prior(np.append(np.zeros(2 * N), 0.5), covariance, np.zeros((N, N)) if pairs is None else pairs, 0.03, 0.003)


def slowdowns(own: NDArray[np.int64], overlaps: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log1p(np.exp(TRUE[own]) * (overlaps @ np.exp(TRUE[N:]))))


def drawn(m: int, counts: float = 64.0) -> Observations:
    """Sets of up to three co-runners that overlap in part."""
    rng = np.random.default_rng(0)
    own, overlaps = rng.integers(0, N, m), rng.choice([0.0, 0.5, 1.0], (m, N))
    overlaps[:, 0] += overlaps.sum(axis=1) == 0.0
    return Observations(own, overlaps, slowdowns(own, overlaps), np.full(m, counts))


def test_sums_of_both_numbers_are_found_from_sets_of_co_runners() -> None:
    found = fit(prior(), drawn(200)).mean
    np.testing.assert_allclose(found[:N, None] + found[N : 2 * N], TRUE[:N, None] + TRUE[N:], atol=0.15)


def test_without_samples_the_prior_stays() -> None:
    found = fit(prior(), drawn(0))
    np.testing.assert_array_equal(found.mean, prior().mean)
    np.testing.assert_array_equal(found.covariance, prior().covariance)
    assert not found.pull.any()
    assert not found.learned.any()


def test_samples_make_certain() -> None:
    spreads = [np.diagonal(fit(prior(), drawn(m)).covariance)[: 2 * N] for m in (4, 40, 400)]
    assert (spreads[0] >= spreads[1]).all()
    assert (spreads[1] > spreads[2]).all()


def test_a_pair_that_is_unlike_all_others_is_told_from_them() -> None:
    seen = drawn(200)
    lone = Observations(np.array([1]), np.eye(N)[[2]], slowdowns(np.array([1]), np.eye(N)[[2]]) + 0.3, np.array([64.0]))
    both = Observations(*(np.concatenate(parts) for parts in zip(seen, lone, strict=True)))
    pairs = fit(prior(), both).pairs
    assert pairs[1, 2] == pairs.max() > 0.2


def test_the_share_of_differences_elsewhere_that_holds_here_is_learned() -> None:
    rng = np.random.default_rng(1)
    elsewhere = 0.5 * rng.standard_normal((N, N))
    own, other = (index.ravel() for index in np.indices((N, N)))
    for share in (0.0, 1.0):
        exponent = TRUE[own] + TRUE[N + other] + share * elsewhere[own, other]
        seen = Observations(own, np.eye(N)[other], np.log1p(np.exp(exponent)), np.full(N * N, 64.0))
        assert fit(prior(elsewhere, 0.25), seen).mean[-1] == pytest.approx(share, abs=0.2)


def test_wild_slowdowns_leave_finite_numbers() -> None:
    own = np.array([0, 1, 2])
    seen = Observations(own, np.eye(N)[[1, 2, 3]], np.log([0.1, 1_000.0, 1.0]), np.full(3, 64.0))
    found = fit(prior(), seen)
    assert np.isfinite(found.mean).all()
    assert np.isfinite(found.covariance).all()


def test_a_start_that_is_close_leads_to_the_same() -> None:
    seen = drawn(50)
    found = fit(prior(), seen)
    np.testing.assert_allclose(fit(prior(), seen, found.mean).mean, found.mean, atol=5e-3)
