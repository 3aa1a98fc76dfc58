"""The time integral of the co-runners' features against a brute-force sum over all intervals, to the last bit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.colocation import SCALE, Colocation, quantize
from predictor.slowdown_function import ZERO_SUMS, Sums

Span = tuple[int, int, Sums]
"""Start, end, contribution."""


def batch(*parts: float, slot: int = 0, pressure: float = 0.0) -> Sums:
    shares = (*parts, 0.0, 0.0, 0.0)[:3]
    return (*shares, *ZERO_SUMS[:slot], pressure, *ZERO_SUMS[4 + slot :])


owns = st.sampled_from(
    (
        batch(1 / 3, 0.1, 0.7),
        batch(1.0, 1.0, 1.0, slot=8, pressure=0.37),
        batch(0.0, 0.9, 1e-6, slot=3, pressure=150.0),
        batch(slot=15, pressure=1 / 7),
    )
)
spans = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), owns), min_size=1, max_size=12)


def brute_force(mine: int, spans: list[Span]) -> tuple[float, ...]:
    """Mean over span `mine` of the summed features of all others."""
    start, end, _ = spans[mine]
    whole = [0] * len(ZERO_SUMS)
    for i, (other_start, other_end, other) in enumerate(spans):
        if i != mine:
            overlap = max(0, min(end, other_end) - max(start, other_start))
            whole = [w + overlap * f for w, f in zip(whole, quantize(other), strict=True)]
    return tuple(w / ((end - start) * SCALE) for w in whole)


@settings(max_examples=100, deadline=None)
@given(spans)
def test_the_integral_over_a_batchs_co_runners_is_exact(drawn: list[Span]) -> None:
    drawn = [(start, start + length, own) for start, length, own in drawn]
    events = sorted([(s, 1, i) for i, (s, _, _) in enumerate(drawn)] + [(e, 2, i) for i, (_, e, _) in enumerate(drawn)])
    colocation = Colocation()
    for at, kind, i in events:
        if kind == 1:
            colocation.launch(i, drawn[i][2], at)
        else:
            colocation.advance(at)
            if drawn[i][0] < at:
                assert colocation.suffered(i) == brute_force(i, drawn)
            colocation.finish(i, at)
        colocation.check()
    assert len(colocation) == 0
    assert colocation.running() == ZERO_SUMS


def test_a_co_runner_of_half_the_time_counts_half() -> None:
    colocation = Colocation()
    colocation.launch("a", batch(0.1, 0.1, 0.1, slot=1, pressure=0.5), 1_000)
    colocation.launch("b", batch(0.8, 0.4, 0.2, slot=2, pressure=3.0), 1_050)
    colocation.advance(1_100)
    assert colocation.suffered("a") == batch(0.4, 0.2, 0.1, slot=2, pressure=1.5)
    assert colocation.suffered("b") == batch(0.1, 0.1, 0.1, slot=1, pressure=0.5)
    colocation.finish("b", 1_100)
    colocation.advance(1_200)
    assert colocation.suffered("a") == batch(0.2, 0.1, 0.05, slot=2, pressure=0.75)


def test_a_batch_that_starts_now_reports_the_co_runners_of_the_moment() -> None:
    colocation = Colocation()
    colocation.launch("a", batch(0.5), 7)
    colocation.launch("b", batch(0.25), 7)
    assert (colocation.suffered("a")[0], colocation.suffered("b")[0]) == (0.25, 0.5)


def test_running_batches_add_up() -> None:
    colocation = Colocation()
    one, other = batch(0.5, 0.25, 0.125, slot=2, pressure=2.0), batch(0.125, slot=2, pressure=0.25)
    colocation.launch("a", one, 7)
    colocation.launch("b", other, 9)
    assert colocation.own("a") == one
    assert colocation.running() == batch(0.625, 0.25, 0.125, slot=2, pressure=2.25)


def test_the_integral_does_not_drift_over_many_batches() -> None:
    colocation = Colocation()
    for i in range(3_000):
        colocation.launch(i, batch(0.1, 1 / 3, 0.7, slot=i % 16, pressure=0.3), i * 7)
        if i >= 2:
            colocation.finish(i - 2, i * 7 + 3)
    colocation.finish(2_998, 10**6)
    colocation.finish(2_999, 10**6)
    assert colocation.running() == ZERO_SUMS


def test_an_impossible_event_is_refused() -> None:
    colocation = Colocation()
    colocation.launch("a", batch(), 10)
    with pytest.raises(ValueError, match="time went back from 10 to 9 ns"):
        colocation.advance(9)
    with pytest.raises(ValueError, match="batch 'a' already runs"):
        colocation.launch("a", batch(), 11)
    with pytest.raises(KeyError):
        colocation.finish("b", 12)
    colocation.check()
