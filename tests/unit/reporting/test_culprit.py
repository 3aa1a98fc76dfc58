"""Naming the model that costs the others most, and naming nobody."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from backend.load.arrivals import Traffic
from backend.reporting.culprit import Suffering, find_culprit, sufferings
from backend.reporting.report import make_report
from tests.fakes.simulated_log import SimulatedLog, model, write_logs


def suffering(model: str, **caused_ns: int) -> Suffering:
    return Suffering(model, 100, Counter(caused_ns))


def test_a_planted_culprit_is_found_in_events_and_in_samples(disturbed: SimulatedLog) -> None:
    for log in (disturbed.events, disturbed.samples):
        report = make_report(log)
        culprit = find_culprit(sufferings(report.attribution))
        assert culprit is not None
        assert culprit.model == "heavy"
        assert [sentence for sentence in report.said if sentence.startswith("heavy ") and "most" in sentence]


def test_a_log_without_a_culprit_accuses_nobody(alike: SimulatedLog) -> None:
    for log in (alike.events, alike.samples):
        report = make_report(log)
        assert find_culprit(sufferings(report.attribution)) is None
        assert [sentence for sentence in report.said if sentence.startswith("No model stands out")]
        assert not [sentence for sentence in report.said if "causes" in sentence or "another device" in sentence]


@pytest.mark.parametrize("seed", (2, 10))
def test_chance_makes_no_culprit_of_one_of_two_equal_models(tmp_path: Path, seed: int) -> None:
    models = [model("a", 10.0, 0.5), model("b", 10.0, 0.5)]
    log = write_logs(tmp_path, models, [Traffic("a", 90.0, 30.0), Traffic("b", 90.0, 30.0)], 5.0, seed=seed)
    for path in (log.events, log.samples):
        assert not [sentence for sentence in make_report(path).said if "causes" in sentence]


def test_it_must_cost_them_twice_what_any_other_does_their_own_model_included() -> None:
    assert find_culprit([suffering("a", b=50, a=20, c=24)] * 40) is not None
    assert find_culprit([suffering("a", b=50, a=26)] * 40) is None


def test_it_must_cost_them_a_tenth_of_their_time() -> None:
    assert find_culprit([suffering("a", b=10)] * 40) is not None
    assert find_culprit([suffering("a", b=9)] * 40) is None


def test_few_sufferers_and_a_single_bad_moment_tell_nothing() -> None:
    assert find_culprit([suffering("a", b=50)] * 19) is None
    assert find_culprit([suffering("a", b=99)] * 30 + [suffering("a", c=10)] * 70) is None


def test_it_must_cost_them_twice_what_they_cost_it() -> None:
    assert find_culprit([suffering("a", b=50), suffering("b", a=50)] * 40) is None
    culprit = find_culprit([suffering("a", b=60), suffering("b", a=20)] * 40)
    assert culprit is not None
    assert (culprit.model, culprit.share) == ("b", 0.6)


def test_what_it_costs_itself_does_not_count() -> None:
    assert find_culprit([suffering("a", a=90)] * 40) is None
