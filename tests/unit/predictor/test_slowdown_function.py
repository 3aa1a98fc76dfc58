"""The form that forecasts evaluate: many batches at once as each by itself, and as the learner that it comes from."""

from __future__ import annotations

from math import log1p

import numpy as np
import pytest

from predictor.features import ZERO_SUMS, Own, Sums, contribution, exposure_of_sums
from predictor.learners.linear import Rls
from predictor.slowdown_function import SLOWDOWN_MAX, SLOWDOWN_MIN, SlowdownFunction, SlowdownFunctions
from tests.fakes.builders import load


def drawn(rng: np.random.Generator, logarithmic: bool) -> SlowdownFunction:
    shares = rng.uniform(0, 1, 3).tolist()
    weights = rng.normal(0, 0.3, 15).tolist()
    overdraft = (weights[11], weights[12], weights[13])
    return SlowdownFunction(load(5, *shares), weights[0], tuple(weights[1:11]), overdraft, logarithmic, weights[14])


def co_runners(rng: np.random.Generator, count: int) -> Sums:
    sums = np.zeros(6)
    for _ in range(count):
        own = Own("m", int(rng.integers(1, 32)), load(float(rng.uniform(0.1, 300)), *rng.uniform(0, 1, 3).tolist()))
        sums += contribution(own.batch_size, own.load)
    n, c, l2, d, solo, size = sums.tolist()
    return (n, c, l2, d, solo, size)


@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_many_functions_at_once_are_each_by_itself(logarithmic: bool, count: int) -> None:
    """Each with all others as co-runners."""
    rng = np.random.default_rng(count)
    each = [drawn(rng, logarithmic) for _ in range(count)]
    adds = [contribution(int(rng.integers(1, 32)), r.load) for r in each]
    sums = np.sum(adds, axis=0)
    same_core = rng.integers(0, 4, count).tolist()
    sharing = np.array([r.sharing * log1p(k) for r, k in zip(each, same_core, strict=True)])
    together = SlowdownFunctions(np.array([r.row(a) for r, a in zip(each, adds, strict=True)]).T).slowdowns(
        sums, sharing
    )
    others = [np.maximum(sums - a, [0.0] * 4 + [-np.inf] * 2).tolist() for a in adds]
    together = np.maximum(together, SLOWDOWN_MIN)  # which callers do with a bound of theirs
    assert together.tolist() == pytest.approx(
        [r.slowdown(s, k) for r, s, k in zip(each, others, same_core, strict=True)]
    )


@pytest.mark.parametrize("logarithmic", [True, False])
def test_a_slowdown_stays_within_its_bounds(logarithmic: bool) -> None:
    low, high = (SlowdownFunction(load(1), base, (0.0,) * 10, logarithmic=logarithmic) for base in (-1e6, 1e6))
    assert high.slowdown(ZERO_SUMS) == pytest.approx(SLOWDOWN_MAX)
    assert low.slowdown(ZERO_SUMS) == pytest.approx(SLOWDOWN_MIN)
    assert SlowdownFunctions(np.array([high.row(ZERO_SUMS)]).T).slowdowns(np.zeros(6)).tolist() == pytest.approx(
        [SLOWDOWN_MAX]
    )


def test_the_papers_form_is_what_rls_predicts() -> None:
    rng = np.random.default_rng(1)
    learner = Rls()
    for _ in range(200):
        own = Own("m", 1, load(5, *rng.uniform(0, 1, 3).tolist()))
        learner.learn_one(own, exposure_of_sums(own, co_runners(rng, 3)), float(rng.uniform(1, 3)))
    for count in range(6):
        own, sums = Own("m", 1, load(5, 0.2, 0.4, 0.6)), co_runners(rng, count)
        predicted = learner.predict_one(own, exposure_of_sums(own, sums))
        assert learner.slowdown_function(own).slowdown(sums) == pytest.approx(predicted)
