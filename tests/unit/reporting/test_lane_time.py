"""Whose batches had the lanes, and for how long."""

from __future__ import annotations

from random import Random

import pytest

from backend.reporting.lane_time import Holder, LaneTime
from backend.reporting.recording import LaneSpan

UNIX_NS = 1_790_000_000_000_000_000
"""An instant beyond what a float tells apart."""


def span(begin_ns: int, end_ns: int, model: str) -> LaneSpan:
    return LaneSpan(UNIX_NS + begin_ns, UNIX_NS + end_ns, model)


def between(found: LaneTime, begin_ns: int, end_ns: int) -> dict[Holder, float]:
    return found.between(UNIX_NS + begin_ns, UNIX_NS + end_ns)


def test_time_counts_evenly_for_those_that_run_and_apart_where_all_lanes_are_taken() -> None:
    found = LaneTime([span(0, 100, "a"), span(40, 80, "b"), span(40, 60, "b")], lanes=2)
    assert between(found, 0, 40) == {Holder("a", False): 40.0}
    assert between(found, 40, 60) == pytest.approx({Holder("a", True): 20 / 3, Holder("b", True): 40 / 3})
    assert between(found, 60, 80) == pytest.approx({Holder("a", True): 10.0, Holder("b", True): 10.0})
    assert between(found, 70, 130) == pytest.approx(
        {Holder("a", True): 5.0, Holder("b", True): 5.0, Holder("a", False): 20.0, Holder(None, False): 30.0}
    )
    assert between(found, -50, -10) == {Holder(None, False): 40.0}


def test_the_parts_of_any_span_add_up_to_it() -> None:
    random = Random(1)
    spans = [span(begin, begin + random.randrange(1, 400), random.choice("abc")) for begin in range(0, 9_000, 40)]
    found = LaneTime(spans, lanes=4)
    for _ in range(200):
        begin_ns, length_ns = random.randrange(-500, 9_500), random.randrange(2_000)
        assert sum(between(found, begin_ns, begin_ns + length_ns).values()) == pytest.approx(length_ns)


def test_lanes_are_busy_for_what_batches_have_of_their_time() -> None:
    found = LaneTime([span(0, 100, "a"), span(50, 100, "b")], lanes=2)
    assert found.busy_share(UNIX_NS, UNIX_NS + 100) == pytest.approx(0.75)
    assert found.busy_share(UNIX_NS + 50, UNIX_NS + 200) == pytest.approx(1 / 3)
