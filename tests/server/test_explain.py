"""Events of a real server under a short overload: replayed to the same commands, explained as they happened, and
reported on with the server's own sums.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from backend.commands import main as cli
from backend.reporting.report import make_report
from backend.scheduler.messages import Launch
from backend.scheduler_process.event_file import Handled, read_stretches
from backend.scheduler_process.event_log import VARIABLE as EVENTS
from backend.scheduler_process.replay import Replay
from backend.scheduler_process.request_index import Record, RequestIndex
from backend.scheduler_process.sample_log import VARIABLE as SAMPLES
from backend.server.embedded import EmbeddedServer
from predictor.samples import Sample, read_samples
from tests.server.control import eventually, metric, request
from tests.server.harness import mlp, write_model

MODELS = {"serves": "serve", "rejects": "reject"}
CONFIG = """
backend: "isochrone"
max_batch_size: 4
parameters {{ key: "device_lanes" value {{ string_value: "2" }} }}
parameters {{ key: "on_miss" value {{ string_value: "{on_miss}" }} }}
"""
BURSTS, EACH = 10, 40
"""Requests to each model in a burst, which two lanes serve in some 50 ms."""
GAP_S = 0.1
LANES = 2
ANSWERED_WITHIN_S = 60.0


@dataclass
class Asked:
    """One request of a client's; its objective, which no other one has, finds it in the log."""

    model: str
    slo_ms: float
    sent_s: float
    answered_s: float = 0.0
    error: str = ""


@dataclass
class Overload:
    """What was asked, and what the server wrote about it."""

    folder: Path
    asked: dict[int, Asked] = field(default_factory=dict)
    """By objective in microseconds."""
    outcomes: dict[str, float] = field(default_factory=dict)
    """As the server's metrics count them."""

    @property
    def events(self) -> Path:
        return self.folder / "events.jsonl"

    def samples(self) -> list[Sample]:
        return list(read_samples(self.folder / "samples.jsonl").samples)


@pytest.fixture(scope="module")
def overload(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Overload]:
    folder = tmp_path_factory.mktemp("overload")
    made, model = Overload(folder), mlp(depth=8, hidden=1536)
    for name, on_miss in MODELS.items():
        write_model(folder / "models", name, model, CONFIG.format(on_miss=on_miss))
    env = {EVENTS: str(made.events), SAMPLES: str(folder / "samples.jsonl")}
    with EmbeddedServer(folder / "models", env=env) as server:
        _ask(server, made)
        eventually(lambda: sum(_outcomes(server).values()) == len(made.asked))
        made.outcomes = _outcomes(server)
    yield made


def _ask(server: EmbeddedServer, made: Overload) -> None:
    """Both models by turns, in bursts, whatever the answers."""
    client, random = triton_grpc.InferenceServerClient(server.grpc_url), Random(1)
    x, answers = np.ones((1, 16), np.float32), threading.Semaphore(0)
    for i in range(BURSTS * EACH * len(MODELS)):
        if i % (EACH * len(MODELS)) == 0:
            time.sleep(GAP_S)
        slo_us = 1_000 * random.choice((15, 40, 120)) + i
        asked = made.asked[slo_us] = Asked([*MODELS][i % len(MODELS)], slo_us / 1e3, time.monotonic())
        client.async_infer(
            asked.model,
            request(triton_grpc, {"x": x}),
            partial(_answered, asked, answers),
            parameters={"slo_ms": asked.slo_ms},
            client_timeout=ANSWERED_WITHIN_S,
        )
    for _ in made.asked:
        assert answers.acquire(timeout=ANSWERED_WITHIN_S)
    client.close()


def _answered(asked: Asked, answers: threading.Semaphore, result: Any, error: Exception | None) -> None:
    assert (result is None) == (error is not None)
    asked.answered_s, asked.error = time.monotonic(), str(error or "")
    answers.release()


def _outcomes(server: EmbeddedServer) -> dict[str, float]:
    return {
        outcome: metric(server, "isochrone_requests_total", outcome=outcome)
        for outcome in ("met", "missed", "rejected")
    }


def asked_of(made: Overload, record: Record) -> Asked:
    deadline_ns = record.request.deadline_ns
    assert deadline_ns is not None
    return made.asked[round((deadline_ns - record.request.arrival_ns) / 1e3)]


def launch_instants(made: Overload) -> Counter[int | None]:
    """Number of batches that a decision launched, by its instant."""
    return Counter(
        entry.at_ns
        for stretch in read_stretches(made.events)
        for entry in stretch.entries
        if isinstance(entry, Handled)
        for command in entry.commands
        if isinstance(command, Launch)
    )


def test_the_replay_of_a_server_gives_the_commands_that_it_obeyed(overload: Overload) -> None:
    decisions = 0
    for stretch in read_stretches(overload.events):
        replay = Replay()
        replay.run(stretch)
        assert (replay.departures, replay.times_differ) == ([], 0)
        decisions += replay.decisions
    assert decisions > 10 * BURSTS


def test_the_log_has_every_request_and_what_the_client_got(overload: Overload) -> None:
    index = RequestIndex(overload.events)
    assert index.gaps == []
    assert len(index.requests) == len(overload.asked)
    outcomes = [record.outcome for record in index.requests]
    assert outcomes.count("rejected") == overload.outcomes["rejected"]
    assert outcomes.count("finished") == overload.outcomes["met"] + overload.outcomes["missed"]
    assert overload.outcomes["rejected"] and overload.outcomes["missed"], "it was no overload"
    for record in index.requests:
        asked = asked_of(overload, record)
        assert asked.model == record.model
        assert bool(asked.error) == (record.outcome == "rejected"), asked.error
        decided_ns = record.launched_ns or record.ended_ns
        assert decided_ns is not None
        assert 0 <= decided_ns - record.request.arrival_ns <= (asked.answered_s - asked.sent_s) * 1e9


def test_ten_explanations_agree_with_the_samples_and_the_client(
    overload: Overload, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = RequestIndex(overload.events).requests
    rejected = [record for record in records if record.outcome == "rejected"]
    samples = {(s.model, s.batch): s for s in overload.samples()}
    launches = launch_instants(overload)
    for record in [*Random(2).sample(records, 8), *Random(3).sample(rejected, 2)]:
        monkeypatch.setattr("sys.argv", ["isochrone", "explain", str(overload.events), "--request", record.number])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code in (0, None)
        text = capsys.readouterr().out
        assert f"request {record.number} of model '{record.model}'" in text
        asked = asked_of(overload, record)
        assert f"deadline {asked.slo_ms:.2f} ms later" in text
        if record.outcome == "rejected":
            assert "UNAVAILABLE" in asked.error
            assert f"instead of {asked.slo_ms:.2f} ms" in text
            continue
        assert not asked.error
        assert record.late_ns is not None
        assert ("deadline missed by" in text) == (record.late_ns > 0)
        launched = re.search(r"launched in batch (-?\d+) of .*, (\d) rows?.*, on lane (\d)$", text, re.MULTILINE)
        assert launched is not None
        batch, rows, lane = map(int, launched.groups())
        sample = samples.get((record.model, batch))
        assert ("another batch preempted it" in text) == (sample is None)  # nothing is learned from a suspended one
        if sample is None:
            continue
        assert sample.predicted_ns is not None
        beside = re.search(r"beside (\d) batch", text)
        assert beside is not None
        assert launches[record.launched_ns] > 1 or int(beside[1]) == sum(c.begin == 0.0 for c in sample.co_runners)
        above = LANES * ("it preempted" in text)  # a batch that preempts is sampled on a number above the lanes'
        assert (sample.start_ns, sample.batch_size, sample.lane) == (record.launched_ns, rows, lane + above)
        assert ("a split: more waited" in text) == (sample.decision == "split")
        assert f"predicted {sample.predicted_ns / 1e6:.2f} ms (solo " in text
        assert f"finished: executed in {sample.exec_ns / 1e6:.2f} ms" in text


def test_the_report_has_what_the_server_counted_and_splits_late_requests_exactly(overload: Overload) -> None:
    report = make_report(overload.events)
    deadlines, late = report.figures.deadlines, report.attribution.late
    assert sum(d.rejected for d in deadlines) == overload.outcomes["rejected"]
    answered = overload.outcomes["met"] + overload.outcomes["missed"]
    assert sum(d.met + d.missed for d in deadlines) == answered
    assert len(late) == sum(d.missed for d in deadlines) > 0
    for one in late:
        assert sum(one.parts.values()) == one.total_ns > one.slo_ns
        asked = overload.asked[round(one.slo_ns / 1e3)]
        assert asked.model == one.model
        waited_ns = sum(span_ns for part, span_ns in one.parts.items() if part.cause in ("queueing", "held"))
        assert waited_ns <= (asked.answered_s - asked.sent_s) * 1e9
    assert all(f"| {model} | 1 |" in report.markdown() for model in MODELS)


def test_the_report_on_samples_has_the_same_batches_and_pairs(overload: Overload) -> None:
    events, samples = (make_report(overload.folder / name) for name in ("events.jsonl", "samples.jsonl"))
    undisturbed = [b for b in events.log.batches if not b.suspended]
    assert Counter((b.own.model, b.own.batch_size, b.exec_ns) for b in undisturbed) == Counter(
        (b.own.model, b.own.batch_size, b.exec_ns) for b in samples.log.batches
    )
    assert {(pair.model, pair.by) for pair in samples.figures.pairs} <= {(a, b) for a in MODELS for b in MODELS}
    assert "This is a samples file" in samples.markdown()
