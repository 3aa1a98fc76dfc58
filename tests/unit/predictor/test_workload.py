"""A profile over batch sizes: interpolated between them, proportional beyond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.workload import FEATURES, Load, ModelProfile
from tests.fakes.builders import MS, load

PROFILE = ModelProfile((2, 4, 8), (load(10, 0.2, 0.4, 0.6), load(12, 0.4, 0.4, 0.8), load(20, 0.5, 1.0, 0.8)))


def test_profiled_sizes_are_as_they_are() -> None:
    assert [PROFILE.at(n) for n in (2, 4, 8)] == list(PROFILE.loads)


def test_sizes_between_are_interpolated() -> None:
    assert PROFILE.at(3).solo_ns == 11 * MS
    assert PROFILE.at(3).features == pytest.approx((0.3, 0.4, 0.7))
    assert PROFILE.at(7).solo_ns == 18 * MS
    assert PROFILE.at(7).features == pytest.approx((0.475, 0.85, 0.8))


def test_work_per_kernel_is_interpolated_where_both_sizes_tell_it() -> None:
    low, high, unknown = Load(MS, 0.1, 0.1, 0.1, 1000), Load(MS, 0.1, 0.1, 0.1, 3000), Load(MS, 0.1, 0.1, 0.1)
    assert ModelProfile((1, 3), (low, high)).at(2).kernel_ns == 2000
    assert ModelProfile((1, 3), (low, high)).at(5).kernel_ns == 3000
    assert ModelProfile((1, 3), (low, unknown)).at(2).kernel_ns == 0


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
        ((1,), (load(1e10),), f"a solo latency must be at most {10**15} ns, got {10**16} ns"),
        ((1,), (load(1, 1.5),), "the shares of a load must lie in 0..1, got (1.5, 0.0, 0.0)"),
        ((1,), (load(1, 0, -0.1),), "the shares of a load must lie in 0..1, got (0, -0.1, 0.0)"),
        ((1,), (load(1, dram=float("nan")),), "the shares of a load must lie in 0..1, got (0.0, 0.0, nan)"),
        ((1,), (Load(1, 0, 0, 0, -1),), "the mean time of a load's kernels must not be negative, got -1 ns"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(sizes: tuple[int, ...], loads: tuple[Load, ...], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        ModelProfile(sizes, loads)
    assert str(refused.value) == sentence
