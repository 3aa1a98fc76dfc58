"""Verdicts of a soak: memory that grows, requests that are counted wrongly, and what is left behind are told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from benchmarks.soak.accounts import Account, accounts
from benchmarks.soak.growth import growths
from benchmarks.soak.models import soak_models
from benchmarks.soak.plan import plan_of
from benchmarks.soak.processes import Reading
from benchmarks.soak.quiet import QuietMoment, left_over
from benchmarks.soak.soak import SoakResult
from benchmarks.soak.soak_report import write_report
from benchmarks.soak.tally import (
    ANSWERED,
    CANCELLED,
    INVALID,
    NOT_LOADED,
    REJECTED,
    TRITON,
    UNLOADING,
    WRONG,
    Tally,
    outcome_of,
)

READING = Reading(0.0, "scheduler", 1, 50_000, 30_000, 25_000, 0, 19, 3)


def readings(percent_per_ten_minutes: float, minutes: float = 50.0, jump_kb: int = 0) -> list[Reading]:
    """Of a process whose memory grows so, with some noise; one reading in ten is `jump_kb` higher."""
    random = np.random.default_rng(1)
    found = []
    for at_s in np.arange(0.0, 60.0 * minutes, 5.0):
        kb = 50_000 * (1 + percent_per_ten_minutes / 100 * at_s / 600) + random.normal(0, 20)
        found.append(replace(READING, at_s=float(at_s), rss_kb=round(kb) + (jump_kb if random.random() < 0.1 else 0)))
    return found


@pytest.mark.parametrize(("percent", "grows"), [(0.0, False), (0.3, False), (0.8, True), (2.0, True), (-3.0, False)])
def test_memory_that_grows_by_half_a_percent_per_ten_minutes_is_told(percent: float, grows: bool) -> None:
    (found,) = growths(readings(percent, jump_kb=40_000), from_s=600.0)
    assert found.judged
    assert found.percent == pytest.approx(percent, rel=0.15, abs=0.02)
    assert found.grows == grows


def test_a_process_that_lived_shortly_is_not_judged() -> None:
    (found,) = growths(readings(50.0, minutes=9.0), from_s=0.0)
    assert not found.judged
    assert not found.grows
    assert growths(readings(50.0, minutes=9.0), from_s=600.0) == []


METRICS = """
# TYPE isochrone_requests_total counter
isochrone_requests_total{model="m",outcome="met",version="1"} 90
isochrone_requests_total{model="m",outcome="missed",version="1"} 8
isochrone_requests_total{model="m",outcome="rejected",version="1"} 5
isochrone_requests_total{model="m",outcome="failed",version="1"} 2
isochrone_requests_total{model="m",outcome="cancelled",version="1"} 4
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="m",version="1"} 109
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="m",reason="OTHER",version="1"} 0
"""
AGREE = Counter({ANSWERED: 97, REJECTED: 5, INVALID: 2, CANCELLED: 5, TRITON: 3})


def one(clients: Counter[str], metrics: str = METRICS, unloaded: frozenset[str] = frozenset()) -> Account:
    (found,) = accounts({"m": clients}, metrics, unloaded)
    return found


def test_counts_that_agree_to_the_request() -> None:
    """One of the cancelled ones ran all the same, and what Triton refuses itself is counted nowhere."""
    assert one(AGREE).wrong == ()
    gone = AGREE + Counter({NOT_LOADED: 7})
    began_anew = METRICS.replace(" 109", " 3")
    assert one(gone, began_anew, frozenset({"m"})).wrong == ()


@pytest.mark.parametrize("outcome", [ANSWERED, REJECTED, INVALID, UNLOADING, CANCELLED])
@pytest.mark.parametrize("more", [-1, 1])
def test_one_request_that_is_not_counted_or_counted_twice_is_told(outcome: str, more: int) -> None:
    clients = Counter(AGREE)
    clients[outcome] += more
    assert one(clients).wrong


@pytest.mark.parametrize("outcome", [WRONG, "[StatusCode.DEADLINE_EXCEEDED] Deadline Exceeded", "under way"])
def test_an_outcome_that_no_soak_means_to_have_is_told(outcome: str) -> None:
    assert f"1 × {outcome}" in one(AGREE + Counter({outcome: 1})).wrong


def test_sentences_of_errors_are_sorted() -> None:
    rejected = "[request id: 1] model 'm': the request cannot meet its deadline: 3.0 ms predicted, 1.0 ms allowed"
    assert outcome_of(InferenceServerException(rejected)) == REJECTED
    assert outcome_of(InferenceServerException("Locally cancelled by application!")) == CANCELLED
    other = InferenceServerException("Stub process 'm_0' is not healthy.")
    assert outcome_of(other) == str(other)


def test_a_tally_knows_what_is_under_way() -> None:
    tally = Tally()
    tally.sent("m")
    assert tally.counts() == {"m": Counter({"under way": 1})}
    tally.ended("m", ANSWERED)
    assert tally.counts() == {"m": Counter({ANSWERED: 1})}


def quiet(**changes: Any) -> QuietMoment:
    return QuietMoment((replace(READING, **changes),), {"triton_1": 4096}, {"cpu.sock": 0}, "")


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        (quiet(descriptors=20), "scheduler has 20 descriptors, 19 before"),
        (quiet(threads=4), "scheduler has 4 threads, 3 before"),
        (quiet(pid=9), "scheduler is another process (9) than before (1)"),
        (replace(quiet(), readings=()), "scheduler (1) is gone"),
        (replace(quiet(), readings=(READING, replace(READING, role="trial", pid=2))), "a process more: trial (2)"),
        (replace(quiet(), shared_memory={"triton_1": 1, "triton_2": 1}), "2 regions in /dev/shm, 1 before"),
        (replace(quiet(), files={"cpu.sock": 0, "new": 1}), "the runtime folder has 'new', which it had not before"),
    ],
)
def test_what_is_left_over_is_told(after: QuietMoment, sentence: str) -> None:
    assert left_over(quiet(), after) == [sentence]
    reloaded = "model reloaded_0"
    assert left_over(quiet(role=reloaded), quiet(role=reloaded, pid=9, descriptors=30)) == []


def test_every_model_knows_its_right_answers() -> None:
    random = np.random.default_rng(1)
    for model in soak_models(large_mb=0.01):
        request = model.draw(random)
        assert not request.right(np.full((7, 7), -1.0)), model.name


def test_the_report_is_written(tmp_path: Path) -> None:
    found = readings(1.0)
    result = SoakResult(plan_of(60.0), found, growths(found, 600.0), [one(AGREE)], 3, 3_600.0, ["something grows"])
    write_report(result, tmp_path, finished=True)
    report = (tmp_path / "soak.md").read_text()
    assert "- something grows" in report
    assert "| scheduler | 1 | 39.9 | " in report
    assert "grows |" in report
    assert '"passed": false' in (tmp_path / "soak.json").read_text()
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
