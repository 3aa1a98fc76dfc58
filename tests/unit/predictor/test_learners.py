"""What the upper bound and a profile promise: it holds its share, and stays bounded."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from predictor.bound import UpperBound
from predictor.workload import FEATURES, Load, ModelProfile
from tests.fakes.builders import MS, load

Vector = NDArray[np.float64]

# UpperBound


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


def test_another_share_may_be_chosen() -> None:
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


def test_its_bound_state_is_bounded() -> None:
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


# ModelProfile


PROFILE = ModelProfile((2, 4, 8), (load(10, 0.2, 0.4, 0.6), load(12, 0.4, 0.4, 0.8), load(20, 0.5, 1.0, 0.8)))


def test_profiled_sizes_are_as_they_are() -> None:
    assert [PROFILE.at(n) for n in (2, 4, 8)] == list(PROFILE.loads)


def test_sizes_between_are_interpolated() -> None:
    assert PROFILE.at(3).solo_ns == 11 * MS
    assert PROFILE.at(3).features == pytest.approx((0.3, 0.4, 0.7))
    assert PROFILE.at(7).solo_ns == 18 * MS
    assert PROFILE.at(7).features == pytest.approx((0.475, 0.85, 0.8))


def test_a_smaller_size_takes_as_long_as_the_smallest() -> None:
    assert PROFILE.at(1) == PROFILE.loads[0]


def test_beyond_the_largest_time_grows_with_the_rows() -> None:
    assert PROFILE.at(12) == load(30, 0.5, 1.0, 0.8)


@given(st.integers(1, 1_000), st.integers(1, 1_000))
def test_more_rows_never_take_less_time(a: int, b: int) -> None:
    assert PROFILE.at(min(a, b)).solo_ns <= PROFILE.at(max(a, b)).solo_ns


def test_features_stand_in_the_order_of_their_names() -> None:
    assert FEATURES == ("compute", "l2", "dram")
    assert Load(1, 0.1, 0.2, 0.3).features == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("sizes", "loads", "sentence"),
    [
        ((), (), "a profile needs one load per batch size, got 0 for ()"),
        ((1, 2), (load(1),), "a profile needs one load per batch size, got 1 for (1, 2)"),
        ((2, 1), (load(1), load(2)), "batch sizes of a profile must ascend from 1 or more, got (2, 1)"),
        ((1, 1), (load(1), load(2)), "batch sizes of a profile must ascend from 1 or more, got (1, 1)"),
        ((0, 1), (load(1), load(2)), "batch sizes of a profile must ascend from 1 or more, got (0, 1)"),
        ((1,), (load(0),), "a solo latency must be positive, got 0 ns"),
        ((1,), (load(1, 1.5),), "the shares of a load must lie in 0..1, got (1.5, 0.0, 0.0)"),
        ((1,), (load(1, 0, -0.1),), "the shares of a load must lie in 0..1, got (0, -0.1, 0.0)"),
        ((1,), (load(1, dram=float("nan")),), "the shares of a load must lie in 0..1, got (0.0, 0.0, nan)"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(sizes: tuple[int, ...], loads: tuple[Load, ...], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        ModelProfile(sizes, loads)
    assert str(refused.value) == sentence
