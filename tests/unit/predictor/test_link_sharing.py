"""Transfers that share a link, against ends worked out by hand and against stepping through time in small steps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.link_sharing import Link, Span, finishes, solo_ns

REL = 1e-9


def test_a_single_transfer_takes_its_solo_time() -> None:
    assert finishes([(5.0, 10.0)]) == [15.0]
    assert finishes([]) == []


def test_two_transfers_share_the_link_while_they_overlap() -> None:
    """Half of the first is left at 5, which takes until 15; then half of the other is left, alone."""
    assert finishes([(0.0, 10.0), (5.0, 10.0)]) == [15.0, 20.0]
    assert finishes([(5.0, 10.0), (0.0, 10.0)]) == [20.0, 15.0]


def test_three_transfers_that_begin_one_after_the_other() -> None:
    """At 6 the first has 4 and the second 9 to go, and the third joins: three times as slow until 18; and so on."""
    assert finishes([(0.0, 9.0), (4.0, 10.0), (6.0, 20.0)]) == [18.0, 28.0, 39.0]


def test_equal_transfers_end_together() -> None:
    assert finishes([(0.0, 7.0)] * 3) == [21.0] * 3


def test_an_empty_transfer_delays_no_other() -> None:
    assert finishes([(0.0, 10.0), (5.0, 0.0)]) == [10.0, 5.0]


def test_a_transfer_that_ends_early_leaves_the_link_to_the_others() -> None:
    link = Link[str]()
    link.start("a", 10.0, 100.0)
    link.start("b", 10.0, 100.0)
    assert link.next == (120.0, "a")
    link.end("a", 104.0)
    assert link.left_ns(104.0) == {"b": 8.0}
    assert list(link.ended(111.0)) == []
    assert list(link.ended(112.0)) == [(112.0, "b")]
    assert link.next is None
    assert len(link) == 0


def test_a_transfer_is_under_way_once() -> None:
    link = Link[str]()
    link.start("a", 10.0, 0.0)
    with pytest.raises(ValueError, match="transfer 'a' is under way already"):
        link.start("a", 10.0, 0.0)


def test_a_solo_time_follows_from_the_overlapping_spans() -> None:
    first, second, third = Span(0.0, 15.0), Span(5.0, 20.0), Span(30.0, 32.0)
    assert solo_ns(first, [second, third]) == 10.0
    assert solo_ns(second, [first, third]) == 10.0
    assert solo_ns(third, [first, second]) == 2.0
    assert solo_ns(Span(0.0, 6.0), [Span(1.0, 5.0), Span(2.0, 4.0)]) == pytest.approx(2 + 2 / 2 + 2 / 3)


transfers = st.lists(st.tuples(st.floats(0.0, 1e6), st.floats(1.0, 1e6)), min_size=1, max_size=12)


@settings(max_examples=100)
@given(transfers)
def test_solo_times_are_recovered_from_spans(drawn: list[tuple[float, float]]) -> None:
    spans = [Span(begin, end) for (begin, _), end in zip(drawn, finishes(drawn), strict=True)]
    for i, (_, alone) in enumerate(drawn):
        assert solo_ns(spans[i], spans[:i] + spans[i + 1 :]) == pytest.approx(alone, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(transfers)
def test_ends_are_those_of_small_steps(drawn: list[tuple[float, float]]) -> None:
    ends = finishes(drawn)
    step = max(ends) / 2_000
    for end, stepped in zip(ends, in_small_steps(drawn, step), strict=True):
        assert end == pytest.approx(stepped, abs=step * (2 * len(drawn) + 2))


def in_small_steps(drawn: list[tuple[float, float]], step: float) -> list[float]:
    """Each transfer's end, by Euler's method."""
    left, over, now = [alone for _, alone in drawn], [0.0] * len(drawn), 0.0
    while any(work > 0.0 for work in left):
        active = [i for i, (begin, _) in enumerate(drawn) if begin <= now and left[i] > 0.0]
        now += step
        for i in active:
            left[i] -= step / len(active)
            over[i] = now
    return over
