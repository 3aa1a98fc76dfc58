"""The upper bound holds its share, and stays bounded."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

from predictor.bound import UpperBound

Vector = NDArray[np.float64]


def shares_held(ratios: Vector, bound: UpperBound) -> float:
    held = 0
    for ratio in ratios.tolist():
        held += ratio <= bound.multiplier
        bound.learn_one(ratio)
    return held / len(ratios)


def lognormal(count: int, median: float = 1.0, sigma: float = 0.3) -> Vector:
    return np.asarray(median * np.exp(sigma * np.random.default_rng(3).standard_normal(count)))


_SHIFTS = {
    "stationary": lognormal(5_000),
    "narrow": lognormal(5_000, sigma=0.01),
    "a step up": np.concatenate([lognormal(2_500), lognormal(2_500, 1.5)]),
    "a step down": np.concatenate([lognormal(2_500, 1.5), lognormal(2_500)]),
    "wider": np.concatenate([lognormal(2_500, sigma=0.1), lognormal(2_500, sigma=0.6)]),
    "drift": lognormal(5_000) * np.linspace(1.0, 2.0, 5_000),
    "day and night": lognormal(5_000) * (1.2 + 0.4 * np.sin(np.arange(5_000) / 200)),
}


@pytest.mark.parametrize("kind", _SHIFTS)
def test_the_bound_holds_for_its_share_of_the_batches(kind: str) -> None:
    assert 0.94 <= shares_held(_SHIFTS[kind], UpperBound()) <= 0.96


def test_another_coverage_may_be_chosen() -> None:
    assert shares_held(lognormal(5_000), UpperBound(coverage=0.8)) == pytest.approx(0.8, abs=0.01)


def test_the_bound_comes_down_where_predictions_are_good() -> None:
    bound = UpperBound()
    shares_held(lognormal(1_000, sigma=0.01), bound)
    assert 1.01 < bound.multiplier < 1.03


def test_the_bound_forgets_what_left_its_window() -> None:
    bound = UpperBound(window=50)
    shares_held(np.full(50, 7.0), bound)
    assert bound.multiplier == 7.0
    shares_held(np.full(50, 2.0), bound)
    assert bound.multiplier == 2.0


def test_the_bounds_state_is_bounded() -> None:
    bound = UpperBound(window=100)
    sizes = []
    for i, ratio in enumerate(lognormal(2_000).tolist()):
        bound.learn_one(ratio)
        if i % 100 == 99:
            assert sorted(bound._recent) == bound._sorted
            sizes.append(len(pickle.dumps(bound)))
    assert len(bound._recent) == 100
    assert max(sizes) - min(sizes) < 64


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_ratio_that_is_no_positive_number_is_refused(bad: float) -> None:
    bound = UpperBound()
    before = pickle.dumps(bound)
    with pytest.raises(ValueError, match="cannot learn from the ratio"):
        bound.learn_one(bad)
    assert pickle.dumps(bound) == before


@pytest.mark.parametrize("coverage", [0.49, 1.0])
def test_a_coverage_out_of_range_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match=r"coverage must lie in 0\.5\.\.1"):
        UpperBound(coverage)
