"""Expectations of a machine from others."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from predictor.machines.priors import PRIORS
from predictor.machines.shared_prior import KnownMachine, SharedPrior, likenesses

A, B, C = ("a", 1), ("a", 8), ("b", 1)


def machine(origin: float, a: float, b: float, certain: float = 1.0) -> KnownMachine:
    """Kind A has the numbers; other kinds are unknown."""
    return KnownMachine(origin, {A: (a, b, certain, certain)}, {(A, C): 0.4}, {})


def test_nothing_known_is_the_same_for_all_kinds() -> None:
    rows = SharedPrior(PRIORS).rows([A, B, C], {})
    np.testing.assert_array_equal(rows.mean, [PRIORS.origin] * 3 + [0.0] * 3)
    np.testing.assert_allclose(rows.own_sd**2, [PRIORS.alone[0]] * 3 + [PRIORS.alone[1]] * 3)


def test_expectations_are_means_of_the_machines_by_weight_and_certainty() -> None:
    shared = SharedPrior(PRIORS, [(3.0, machine(-1.0, 0.4, 0.8)), (1.0, machine(1.0, -0.4, 0.0))])
    rows = shared.rows([A, C], {})
    assert shared.origin == pytest.approx(-0.5)
    np.testing.assert_allclose(rows.mean, [-0.5 + 0.2 / 1.05, -0.5, 0.6 / 1.05, 0.0])
    unsure = SharedPrior(PRIORS, [(1.0, machine(0.0, 0.4, 0.8, certain=0.1))]).rows([A], {})
    assert 0.0 < unsure.mean[0] < 0.3


def test_kinds_that_nobody_knows_are_less_certain() -> None:
    shared = SharedPrior(PRIORS, [(1.0, machine(0.0, 0.4, 0.8))], strength=(0.01, 0.02))
    np.testing.assert_allclose(shared.rows([A, C], {}).own_sd ** 2, [0.01, PRIORS.alone[0], 0.02, PRIORS.alone[1]])


def test_solo_latencies_count_by_what_is_unusual_on_the_machine() -> None:
    known = machine(0.0, 0.4, 0.8)._replace(log_solo={(model, 1): log(1e6) for model in "abc"})
    here = {("a", 1): log(2e6), ("b", 1): log(2e6), ("c", 1): log(8e6)}
    columns = SharedPrior(PRIORS, [(1.0, known)], here).rows(list(here), here).columns
    np.testing.assert_allclose(columns[:3, 3], [0.0, 0.0, PRIORS.solo_sd * log(4.0)], atol=1e-12)


def test_a_joint_expectation_has_what_pairs_differ_by_elsewhere() -> None:
    shared = SharedPrior(PRIORS, [(3.0, machine(0.0, 0.4, 0.8)), (1.0, KnownMachine(0.0, {}, {}, {}))])
    prior = shared.prior([A, C], shared.rows([A, C], {}))
    assert prior.pairs[0, 1] == pytest.approx(0.3) == shared.pair(A, C)
    assert prior.pairs[1, 0] == shared.pair(C, A) == 0.0
    np.testing.assert_allclose(prior.covariance, prior.covariance.T)
    assert np.linalg.eigvalsh(prior.covariance).min() > 0.0


def test_sizes_of_a_model_are_the_more_alike_the_nearer_they_are() -> None:
    kinds = [("a", 1), ("a", 2), ("a", 64), ("b", 1)]
    alike = likenesses(kinds, kinds)
    np.testing.assert_allclose(np.diagonal(alike), 1.0)
    assert 1.0 > alike[0, 1] > alike[0, 2] > alike[0, 3] == 0.0
    np.testing.assert_array_equal(likenesses(kinds[:1], kinds), alike[:1])
