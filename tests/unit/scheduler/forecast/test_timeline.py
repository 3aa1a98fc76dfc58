"""The timeline of finishes against hand-computed ones, and against stepping through time in small steps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.scheduler.forecast import timeline
from backend.scheduler.forecast.timeline import HORIZON, CoreSharing
from backend.scheduler.running_batch import MIN_SLOWDOWN
from predictor.slowdown_function import ZERO_SUMS, SlowdownFunction, SlowdownFunctions

A, B, C = "A", "B", "C"


@dataclass(frozen=True)
class Batch:
    """A batch whose slowdown is `base` + the `pressure` of all others: what the linear form makes of one share."""

    key: object
    remaining_ns: float
    base: float
    pressure: float


SHARING = 0.7


def forecast_finishes(batches: list[Batch], cores: list[int] | None = None) -> dict[object, float]:
    """By key, in order of their finish. cores: of each, where they share some."""
    alike = (1.0, *ZERO_SUMS[1:])
    adds = [(b.pressure, *ZERO_SUMS[1:]) for b in batches]
    each = [SlowdownFunction(b.base, 1.0, alike) for b in batches]
    functions = SlowdownFunctions(np.array([r.among(a).row() for r, a in zip(each, adds, strict=True)]).T[None])
    contributions = np.array(adds).T
    remaining_ns = np.array([[b.remaining_ns for b in batches]])
    sharing = None
    if cores is not None:
        sharing = CoreSharing(np.array(cores), np.full((1, len(batches)), SHARING), [True])
    finishes = timeline.forecast_finishes(remaining_ns, contributions[None], functions, sharing)[0]
    found = dict(zip([b.key for b in batches], finishes.tolist(), strict=True))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def test_a_solo_batch_takes_its_base() -> None:
    assert forecast_finishes([Batch(A, 100.0, 1.5, 0.7)]) == {A: 150.0}


def test_two_batches_until_the_first_finish_and_after() -> None:
    """A, slowed by 1.5, ends at 150; by then B, slowed by 1.2, did 125 of 200; the other 75 it runs alone."""
    finishes = forecast_finishes([Batch(A, 100.0, 1.0, 0.2), Batch(B, 200.0, 1.0, 0.5)])
    assert finishes == pytest.approx({A: 150.0, B: 225.0})


def test_the_order_of_the_batches_does_not_matter() -> None:
    batches = [Batch(A, 100.0, 1.0, 0.2), Batch(B, 200.0, 1.1, 0.5), Batch(C, 50.0, 1.2, 0.0)]
    assert forecast_finishes(batches) == pytest.approx(forecast_finishes(batches[::-1]))


def test_batches_that_tie_finish_together() -> None:
    """At 175, when C, slowed by 2, has done 87.5 of 200."""
    batches = [Batch(A, 100.0, 1.0, 0.5), Batch(B, 100.0, 1.0, 0.5), Batch(C, 200.0, 1.0, 0.25)]
    assert forecast_finishes(batches) == pytest.approx({A: 175.0, B: 175.0, C: 287.5})


def test_whoever_has_most_left_may_finish_first() -> None:
    """By its base: 100 × 3 against 200 × 1."""
    assert list(forecast_finishes([Batch(A, 100.0, 3.0, 0.0), Batch(B, 200.0, 1.0, 0.0)])) == [B, A]


def test_a_slowdown_is_never_below_the_least() -> None:
    assert forecast_finishes([Batch(A, 100.0, -1.0, 0.0)]) == {A: 100.0 * MIN_SLOWDOWN}
    assert forecast_finishes([Batch(A, 100.0, 1.0, 0.0), Batch(B, 300.0, 1.0, -9.0)])[A] == 50.0


def test_beyond_the_horizon_the_pressure_stays() -> None:
    """Ten equal co-runners of one that lasts: only so many finishes are followed, the last is not left alone."""
    short = [Batch((1, i), 10.0 * (1 + i), 1.0, 0.0) for i in range(HORIZON)]
    lasting = [Batch((2, i), 1_000.0, 1.0, 0.1) for i in range(3)]
    finishes = forecast_finishes([*short, *lasting])
    assert finishes[(2, 0)] == finishes[(2, 2)] == pytest.approx(1_200.0)


spans = st.floats(1e3, 1e8)
batches = st.lists(st.tuples(spans, st.floats(0.6, 2.0), st.floats(0.0, 1.0)), min_size=1, max_size=HORIZON + 1)


@settings(max_examples=50)
@given(st.lists(st.tuples(spans, st.floats(0.5, 2.0)), min_size=1, max_size=12))
def test_without_pressure_each_finishes_by_itself(drawn: list[tuple[float, float]]) -> None:
    finishes = forecast_finishes([Batch((1, i), left, base, 0.0) for i, (left, base) in enumerate(drawn)])
    for i, (left, base) in enumerate(drawn):
        assert finishes[(1, i)] == pytest.approx(left * base, rel=1e-9, abs=2.0)


@settings(max_examples=50)
@given(batches, spans)
def test_one_more_batch_never_speeds_the_others_up(drawn: list[tuple[float, float, float]], left: float) -> None:
    running = [Batch((1, i), *values) for i, values in enumerate(drawn[:HORIZON])]
    before = forecast_finishes(running)
    after = forecast_finishes([*running, Batch((2, 1), left, 1.0, 0.5)])
    assert all(after[key] >= before[key] - 2.0 * len(drawn) for key in before)


@settings(max_examples=25, deadline=None)
@given(batches, st.lists(st.integers(0, 1), min_size=HORIZON + 1, max_size=HORIZON + 1) | st.none())
def test_the_timeline_is_that_of_small_steps(drawn: list[tuple[float, float, float]], cores: list[int] | None) -> None:
    cores = None if cores is None else cores[: len(drawn)]
    finishes = forecast_finishes([Batch((1, i), *values) for i, values in enumerate(drawn)], cores)
    stepped = in_small_steps(drawn, cores or list(range(len(drawn))), max(finishes.values()) / 1_000)
    for i, at in enumerate(stepped):
        assert finishes[(1, i)] == pytest.approx(at, abs=max(finishes.values()) / 1_000 * (len(drawn) + 1))
    assert all(a <= b for a, b in pairwise(finishes.values()))


def in_small_steps(drawn: list[tuple[float, float, float]], cores: list[int], step: float) -> list[float]:
    """Finishes by Euler's method."""
    left = [remaining for remaining, _, _ in drawn]
    done = [0.0] * len(drawn)
    now = 0.0
    while going := [i for i, remaining in enumerate(left) if remaining > 0]:
        now += step
        pressure = sum(drawn[i][2] for i in going)
        for i in going:
            shared = sum(cores[j] == cores[i] for j in going) ** SHARING
            left[i] -= step / max(MIN_SLOWDOWN, (drawn[i][1] + pressure - drawn[i][2]) * shared)
            done[i] = now
    return done
