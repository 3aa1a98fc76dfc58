"""Sentences that follow from figures by rules: each said above its threshold, and not below."""

from __future__ import annotations

from collections import Counter

import pytest

from backend.reporting.attribution import Attribution
from backend.reporting.figures import figures_of
from backend.reporting.findings import findings
from backend.reporting.recording import Answer, ExecutedBatch, LaneSpan, Recording
from predictor.features import CoRunner, Own
from tests.fakes.builders import MS, load

GAP_MS = 100


def recording(
    exec_ms: float,
    waited_ms: float = 0.0,
    transfers_ms: float = 0.0,
    overhead_ms: float = 0.0,
    *,
    slo_ms: float = 5.0,
    co_runners: tuple[CoRunner, ...] = (),
    spans: tuple[tuple[float, float, str], ...] = (),
    number: int = 40,
) -> Recording:
    """A log of a device of one lane with so many late requests of `victim`, all alike, one every 100 ms. spans: of the
    lane, from each arrival on.
    """
    took_ms = waited_ms + transfers_ms + exec_ms + overhead_ms
    log = Recording("events", ("gpu-0",), 1, 0, number * GAP_MS * MS)
    own = Own("victim", 1, load(10.0, 0.3))
    for i in range(number):
        at_ns = i * GAP_MS * MS
        answer = Answer(at_ns, at_ns + round(slo_ms * MS), 1)
        launched_ns, ended_ns = at_ns + round(waited_ms * MS), at_ns + round(took_ms * MS)
        exec_ns, transfers_ns = round(exec_ms * MS), round(transfers_ms * MS)
        batch = ExecutedBatch(
            "gpu-0", own, launched_ns, ended_ns, exec_ns, transfers_ns, co_runners, 10 * MS, 12 * MS, answers=(answer,)
        )
        log.batches.append(batch)
        log.spans += [LaneSpan(at_ns + round(a * MS), at_ns + round(b * MS), model) for a, b, model in spans]
    log.outcomes = {("victim", 1): Counter(missed=number), ("culprit", 1): Counter(met=number)}
    return log


def said(log: Recording) -> str:
    found = Attribution(log)
    return "\n".join(findings(log, found, figures_of(log, found)))


def co_runner(model: str = "culprit") -> CoRunner:
    return CoRunner(model, 1, load(40.0, 0.9))


def test_numbers_come_first() -> None:
    text = said(recording(10.0))
    assert text.startswith("Of 80 requests with a deadline 40 were answered late (50 %).\n")
    assert (
        "The late requests took 10.0 ms from arrival to answer in the mean: 100 % their batches' own execution" in text
    )


def test_a_model_that_others_wait_behind_is_named_with_what_would_help() -> None:
    log = recording(10.0, waited_ms=30.0, slo_ms=20.0, spans=((0.0, 30.0, "culprit"), (30.0, 40.0, "victim")))
    assert (
        "culprit causes most lateness: 75 % of the time of the others' 40 late requests (75 % waiting while every lane "
        "was taken). Give it a lower class (it has 1, victim 1) or another device."
    ) in said(log)
    log.outcomes["culprit", 2] = log.outcomes.pop(("culprit", 1))
    assert "It has a lower class already (2, victim 1): give it another device, or a smaller max_batch_size" in said(
        log
    )


def test_interference_of_late_requests_is_told_by_whom() -> None:
    log = recording(16.0, slo_ms=14.0, co_runners=(co_runner(),))
    sentence = (
        "culprit causes 100 % of the interference that victim's late requests suffered, which is 38 % of their time"
    )
    assert sentence in said(log)
    assert "of the interference that" not in said(recording(10.5, slo_ms=10.0, co_runners=(co_runner(),)))
    assert "of the interference that" not in said(recording(16.0, slo_ms=14.0, co_runners=(co_runner("victim"),)))


@pytest.mark.parametrize(
    ("busy_ms", "sentence"),
    [(95.0, "the device is overloaded"), (40.0, "requests come in bursts, or behind long batches")],
)
def test_queueing_is_overload_where_the_lanes_are_busy(busy_ms: float, sentence: str) -> None:
    spans = ((0.0, 30.0, "victim"), (30.0, busy_ms, "victim"))
    text = said(recording(10.0, waited_ms=30.0, slo_ms=20.0, spans=spans))
    assert f"lanes were busy for {busy_ms:.0f} % of the time" in text
    assert text.count("75 % of the late requests' time is queueing, ") == 1
    assert sentence in text


def test_a_wait_with_a_free_lane_is_a_hold() -> None:
    assert "75 % of the late requests' time they were held though a lane was free" in said(
        recording(10.0, waited_ms=30.0)
    )
    assert "held though" not in said(recording(10.0, waited_ms=9.0))


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        (recording(10.0, transfers_ms=10.0), "50 % of the late requests' time is transfers: their tensors move"),
        (recording(10.0, overhead_ms=10.0), "50 % of the late requests' time is overhead: it is spent around"),
        (recording(20.0), "is slower execution that no co-runner explains: their batches were slow without"),
        (recording(10.0, slo_ms=9.0), "victim's late requests had 9.0 ms in the mean, and their batches take 10.0 ms"),
        (recording(20.0, number=120), "The upper bound of victim's batches held for 0 % of them only"),
    ],
)
def test_other_causes_have_their_sentences(log: Recording, sentence: str) -> None:
    assert sentence in said(log)


def test_nothing_is_said_of_what_is_small() -> None:
    text = said(recording(10.0, waited_ms=1.0, transfers_ms=1.0, overhead_ms=1.0, slo_ms=12.8))
    assert len(text.splitlines()) == 3
    assert "No model stands out as the one that costs the others' late requests most." in text


def test_few_late_requests_are_no_ground_for_advice() -> None:
    assert len(said(recording(10.0, waited_ms=30.0, number=19)).splitlines()) == 3


def test_a_log_without_late_requests_says_so() -> None:
    log = recording(10.0, slo_ms=50.0)
    log.outcomes = {("victim", 1): Counter(met=40)}
    assert said(log) == "Of 40 requests with a deadline none was late."
    log.outcomes = {("victim", 1): Counter({"no deadline": 40})}
    assert said(log) == "No request had a deadline that it met, missed or was rejected for, so none was late."
