"""A batch's exposure: exact time means, and the paper's two approximations of them."""

from __future__ import annotations

from itertools import pairwise
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.features import (
    NO_FEATURES,
    PARTS,
    CoRunner,
    Exposure,
    Own,
    check,
    ewma_exposure,
    exposure,
    exposure_of_sums,
    feature_parts,
    static_exposure,
)
from predictor.workload import Load

MS = 1_000_000
OWN = Own("a", 4, Load(2 * MS, 0.6, 0.5, 0.4))
BIG = Load(8 * MS, 0.8, 0.2, 0.1)


def test_a_batch_adds_its_named_parts() -> None:
    assert len(PARTS) == len(NO_FEATURES) == 6
    assert feature_parts(4, BIG) == (1.0, 0.8, 0.2, 0.1, 3.0, 2.0)


def test_the_exposure_of_a_solo_batch_is_zero() -> None:
    seen = exposure(OWN, [])
    assert (seen.sums, seen.overdraft, seen.overlaps) == (NO_FEATURES, (0.0, 0.0, 0.0), ())


def test_exposure_is_the_time_mean_of_contributions() -> None:
    seen = exposure(OWN, [CoRunner("b", 4, BIG, 0.0, 0.5), CoRunner("b", 1, BIG, 0.25, 1.0)])
    assert seen.sums == pytest.approx((1.25, 1.0, 0.25, 0.125, 3.75, 1.0))
    assert seen.overlaps == ((Own("b", 4, BIG), 0.5), (Own("b", 1, BIG), 0.75))
    twice = exposure(OWN, [CoRunner("b", 4, BIG, 0.0, 0.5), CoRunner("b", 4, BIG, 0.25, 1.0)])
    assert twice.overlaps == ((Own("b", 4, BIG), 1.25),)
    # 0.6 + 0.8 − 1 = 0.4 for three quarters of the time, 0.6 + 1.6 − 1 = 1.2 for one.
    assert seen.overdraft == pytest.approx((0.75 * 0.4 + 0.25 * 1.2, 0.0, 0.0))


@given(st.lists(st.tuples(st.integers(1, 32), st.floats(0, 1), st.floats(0, 1)), max_size=8))
def test_exposure_is_additive_over_co_runners(drawn: list[tuple[int, float, float]]) -> None:
    """The property that serving's running integrals need."""
    co_runners = [CoRunner("b", size, BIG, min(a, b), max(a, b)) for size, a, b in drawn]
    each = [exposure(OWN, [n]).sums for n in co_runners]
    assert exposure(OWN, co_runners).sums == pytest.approx(
        [sum(parts) for parts in zip(NO_FEATURES, *each, strict=True)]
    )


def test_a_core_is_divided_evenly() -> None:
    """Alone for a quarter, one of two for a half, one of three for a quarter; who is on another core does not count."""
    co_runners = [
        CoRunner("b", 4, BIG, 0.25, 1.0, same_core=True),
        CoRunner("b", 1, BIG, 0.75, 1.0, same_core=True),
        CoRunner("b", 1, BIG),
    ]
    assert exposure(OWN, co_runners).sharing == pytest.approx(-log(0.25 + 0.5 / 2 + 0.25 / 3))
    assert exposure(OWN, co_runners[2:]).sharing == 0.0
    assert exposure(OWN, [co_runners[2]._replace(same_core=True)]).sharing == pytest.approx(log(2.0))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=8))
def test_core_sharing_costs_between_nothing_and_all_at_once(
    spans: list[tuple[float, float]],
) -> None:
    co_runners = [CoRunner("b", 1, BIG, min(span), max(span), same_core=True) for span in spans]
    assert -1e-9 <= exposure(OWN, co_runners).sharing <= log(1 + len(spans)) + 1e-9


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), max_size=6))
def test_overdraft_is_the_mean_over_the_moments_of_the_execution(spans: list[tuple[float, float, float]]) -> None:
    co_runners = [CoRunner("b", 1, Load(MS, share, 0.0, 0.0), min(a, b), max(a, b)) for a, b, share in spans]
    moments = sorted({0.0, 1.0, *(t for n in co_runners for t in (n.begin, n.end))})
    expected = 0.0
    for since, until in pairwise(moments):
        there = [n.load.compute for n in co_runners if n.begin <= since and n.end >= until]
        expected += (until - since) * max(0.0, OWN.load.compute + sum(there) - 1.0)
    assert exposure(OWN, co_runners).overdraft == pytest.approx((expected, 0.0, 0.0), abs=1e-9)


def test_an_exposure_follows_from_sums_alone() -> None:
    whole = exposure(OWN, [CoRunner("b", 4, BIG)])
    assert exposure_of_sums(OWN, whole.sums) == Exposure(whole.sums, whole.overdraft)


def test_static_features_stay_as_at_launch() -> None:
    seen = static_exposure(OWN, [CoRunner("b", 4, BIG, 0.0, 0.1), CoRunner("c", 1, BIG, 0.1, 1.0)])
    assert seen.sums == feature_parts(4, BIG)


@pytest.mark.parametrize("alpha", [1 / 3, 1 / 2, 2 / 3])
def test_ewma_features_are_blind_to_durations(alpha: float) -> None:
    co_runners = [CoRunner("b", 4, BIG, 0.0, 0.1), CoRunner("c", 4, BIG, 0.9, 1.0)]
    first = 1.0  # one there at launch; it leaves; another comes
    after = alpha * 1.0 + (1 - alpha) * (1 - alpha) * first
    assert ewma_exposure(OWN, co_runners, alpha).sums[0] == pytest.approx(after)


def test_features_that_are_no_numbers_are_refused() -> None:
    seen = exposure(OWN, [CoRunner("b", 4, BIG)])
    check(OWN, seen, 1.5)
    for bad in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError, match="no finite numbers"):
            check(OWN._replace(load=Load(MS, bad, 0.1, 0.1)), seen)
        with pytest.raises(ValueError, match="no finite numbers"):
            check(OWN, seen._replace(sums=(1.0, bad, 0.0, 0.0, 0.0, 0.0)))
        with pytest.raises(ValueError, match="no finite numbers"):
            check(OWN, seen._replace(sharing=bad))
        with pytest.raises(ValueError, match="cannot learn from slowdown"):
            check(OWN, seen, bad)
