"""The fleet demo's load and its sentence."""

from __future__ import annotations

import math

import pytest

from backend.load.figures import MeasuredPoint
from backend.load.outcomes import Summary
from benchmarks.demo_fleet.__main__ import verdict
from benchmarks.demo_fleet.fleet import LEAST_REQUEST, MODELS, ROUTER, traffic


def point(target: str, met: int, repeat: int = 0, load: float = 1.0) -> MeasuredPoint:
    summary = Summary(100, met, 100 - met, 0, 0, met / 100, 1.0, 2.0, met / 10)
    return MeasuredPoint(target, load, repeat, 10.0, summary, {}, {}, 0.0)


def test_the_load_scales_with_what_is_asked_and_slows_with_the_emulated_time() -> None:
    one, half, slow = traffic(1.0, 1.0), traffic(0.5, 1.0), traffic(1.0, 8.0)
    assert [asked.model for asked in one] == list(MODELS)
    assert {asked.priority_class for asked in one} == {1, 2}
    assert half[0].rate_per_s == pytest.approx(one[0].rate_per_s / 2)
    assert slow[0].rate_per_s == pytest.approx(one[0].rate_per_s / 8)
    assert (slow[0].slo_ms or math.nan) == pytest.approx(8 * (one[0].slo_ms or math.nan), rel=0.01)


@pytest.mark.parametrize(("met", "word"), [(90, "more than"), (80, "about as many as"), (70, "fewer than")])
def test_the_sentence_says_who_was_better_whoever_it_was(met: int, word: str) -> None:
    said = verdict([point(LEAST_REQUEST, 80), point(ROUTER, met)])
    assert f"the router kept {met} % of deadlines ({met / 10:.1f}/s), {word} the 80 % of least request" in said
    assert f"by repeat {met - 80:+.1f} points" in said


def test_the_sentence_has_every_load_and_every_repeat() -> None:
    found = [point(target, met, repeat, load) for load in (0.5, 1.0) for repeat in (0, 1) for target, met in
             ((LEAST_REQUEST, 50), (ROUTER, 60 + repeat))]  # fmt: skip
    said = verdict(found)
    assert said.count("+10.0, +11.0 points") == 2
    assert verdict(found[:1]) == "There is nothing to compare yet: only one has run."
