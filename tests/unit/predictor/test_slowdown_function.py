"""The form that forecasts evaluate: many batches at once as each by itself, and as the learner that it comes from."""

from __future__ import annotations

from math import exp, log1p

import numpy as np
import pytest

from predictor.features import Own, exposure_of_sums
from predictor.learners.linear import Rls
from predictor.slowdown_function import (
    SHARES,
    SLOTS,
    SLOWDOWN_MAX,
    SLOWDOWN_MIN,
    WIDTH,
    ZERO_SUMS,
    SlowdownFunction,
    SlowdownFunctions,
    Sums,
    room_of,
)
from tests.fakes.builders import load


def drawn(rng: np.random.Generator, adds: Sums) -> SlowdownFunction:
    weights, overdraft = rng.uniform(0, 0.5, WIDTH).tolist(), rng.normal(0, 0.3, 3).tolist()
    base, gain, sharing = rng.uniform(0.5, 1.5, 3).tolist()
    room = room_of(load(1, *adds[:SHARES]))
    return SlowdownFunction(base, gain, tuple(weights), room, (overdraft[0], overdraft[1], overdraft[2]), sharing)


def contribution(rng: np.random.Generator) -> Sums:
    """Shares, and a pressure in some slot."""
    pressures = [0.0] * SLOTS
    pressures[rng.integers(SLOTS)] = float(rng.uniform(0, 3))
    return (*rng.uniform(0, 1, SHARES).tolist(), *pressures)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_many_functions_at_once_are_each_by_itself(count: int) -> None:
    """Each with all others as co-runners."""
    rng = np.random.default_rng(count)
    adds = [contribution(rng) for _ in range(count)]
    each = [drawn(rng, a) for a in adds]
    sums = np.sum(adds, axis=0)
    same_core = rng.integers(0, 4, count).tolist()
    sharing = np.array([r.sharing * log1p(k) for r, k in zip(each, same_core, strict=True)])
    among = [r.among(a) for r, a in zip(each, adds, strict=True)]
    together = SlowdownFunctions(np.array([r.row() for r in among]).T).slowdowns(sums, sharing)
    together = np.maximum(together, SLOWDOWN_MIN)  # which callers do with a bound of theirs
    others = [(sums - a).tolist() for a in adds]
    expected = [r.slowdown(s, k) for r, s, k in zip(each, others, same_core, strict=True)]
    assert together.tolist() == pytest.approx(expected)
    assert [r.slowdown(sums.tolist(), k) for r, k in zip(among, same_core, strict=True)] == pytest.approx(expected)


def test_a_slowdown_is_that_of_the_equation() -> None:
    """Shares of 0.75 beside 0.5, 0.25 and 0.125 exceed the device by 0.25 of compute."""
    weights = (0.0, 0.0, 0.0, 2.0, 0.5, *ZERO_SUMS[5:])
    function = SlowdownFunction(1.5, 0.5, weights, room_of(load(1, 0.75, 0.75, 0.75)), (0.4, 9.0, 9.0), 0.7)
    sums = (0.5, 0.25, 0.125, 0.1, 3.0, *ZERO_SUMS[5:])
    expected = (1.5 + 0.5 * (2.0 * 0.1 + 0.5 * 3.0)) * exp(0.4 * 0.25)
    assert function.slowdown(sums) == pytest.approx(expected)
    assert function.slowdown(sums, 2) == pytest.approx(expected * 3**0.7)
    assert function.slowdown(ZERO_SUMS) == function.solo == 1.5


def test_a_slowdown_stays_within_its_bounds() -> None:
    low, high = (SlowdownFunction(base) for base in (-1e6, 1e6))
    assert high.slowdown(ZERO_SUMS) == pytest.approx(SLOWDOWN_MAX)
    assert low.slowdown(ZERO_SUMS) == low.solo == pytest.approx(SLOWDOWN_MIN)
    assert high.solo == pytest.approx(SLOWDOWN_MAX)
    assert SlowdownFunctions(np.array([high.row()]).T).slowdowns(np.zeros(WIDTH)).tolist() == pytest.approx(
        [SLOWDOWN_MAX]
    )
    steep = SlowdownFunction(1.0, room=(0.0, 0.0, 0.0), overdraft=(1e6, 0.0, 0.0))
    assert steep.slowdown((1.0, *ZERO_SUMS[1:])) == pytest.approx(SLOWDOWN_MAX)


def test_the_papers_form_is_what_rls_predicts() -> None:
    rng = np.random.default_rng(1)
    learner = Rls()
    for _ in range(200):
        own = Own("m", 1, load(5, *rng.uniform(0, 1, 3).tolist()))
        shares = rng.uniform(0, 3, 3).tolist()
        learner.learn_one(own, exposure_of_sums(own, (3.0, *shares, 0.0, 0.0)), float(rng.uniform(1, 3)))
    for count in range(6):
        own, shares = Own("m", 1, load(5, 0.2, 0.4, 0.6)), rng.uniform(0, 1 + count, 3).tolist()
        predicted = learner.predict_one(own, exposure_of_sums(own, (float(count), *shares, 0.0, 0.0)))
        assert learner.slowdown_function(own).slowdown((*shares, *ZERO_SUMS[SHARES:])) == pytest.approx(predicted)
