"""Arrivals, sending them, what outcomes add up to, and reading of /metrics."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from backend.load import generator as load
from backend.load.arrivals import Arrival, Traffic, along, poisson
from backend.load.generator import LoadInterrupted, is_rejection, run_load
from backend.load.outcomes import Outcome, Status, first_error, lateness_ms, percentile, summarise
from backend.load.server_metrics import parse

TRAFFIC = (Traffic("a", 50.0, 20.0), Traffic("b", 100.0, 40.0, priority_class=2))
METRICS = """\
# HELP isochrone_decisions_total Decisions of the scheduler
# TYPE isochrone_decisions_total counter
isochrone_decisions_total{decision="launch",model="a",version="1"} 3
isochrone_decisions_total{decision="launch",model="b",version="1"} 4
isochrone_decisions_total{decision="hold",model="a",version="1"} 1
isochrone_queue_us_bucket{le="500",model="a",version="1"} 2
isochrone_queue_us_bucket{le="1000",model="a",version="1"} 4
isochrone_queue_us_bucket{le="+Inf",model="a",version="1"} 8
isochrone_queue_us_bucket{le="500",model="b",version="1"} 0
isochrone_queue_us_bucket{le="1000",model="b",version="1"} 2
isochrone_queue_us_bucket{le="+Inf",model="b",version="1"} 2
isochrone_queue_us_sum{model="a",version="1"} 9000
isochrone_queue_us_count{model="a",version="1"} 8
nv_inference_count{model="a",version="1"} 7
"""


def outcome(latency_ms: float, status: Status = "ok", *, priority: int = 1, sent_s: float = 0.0) -> Outcome:
    return Outcome("a", 0.0, sent_s, latency_ms / 1e3, 50.0, priority, status)


def test_arrivals_repeat_with_their_seed_and_come_in_order() -> None:
    plan = poisson(TRAFFIC, 20.0, seed=3)
    assert plan == poisson(TRAFFIC, 20.0, seed=3)
    assert plan != poisson(TRAFFIC, 20.0, seed=4)
    assert [a.at_s for a in plan] == sorted(a.at_s for a in plan)
    assert all(0 <= a.at_s < 20 for a in plan)
    assert {(a.model, a.slo_ms, a.priority) for a in plan} == {("a", 20.0, 1), ("b", 40.0, 2)}


@pytest.mark.parametrize("trace", [(0.0, 5e-324), (0.0, 1e-310, 1.0), (0.0, 0.0, 1e12)])
def test_arrivals_along_a_trace_of_tiny_or_huge_gaps_are_finite_and_in_order(trace: tuple[float, ...]) -> None:
    for seed in range(5):
        times = [arrival.at_s for arrival in along(trace, TRAFFIC, 20.0, seed)]
        assert times == sorted(times)
        assert all(0.0 <= at_s <= 20.0 for at_s in times)


def test_arrivals_of_a_model_are_poisson_at_its_rate() -> None:
    times = [a.at_s for a in poisson(TRAFFIC, 100.0, seed=1) if a.model == "a"]
    gaps = [b - a for a, b in pairwise(times)]
    mean_s = sum(gaps) / len(gaps)
    variance = sum((g - mean_s) ** 2 for g in gaps) / len(gaps)
    assert mean_s == pytest.approx(1 / 50, rel=0.1)
    assert math.sqrt(variance) / mean_s == pytest.approx(1.0, abs=0.1)  # exponential gaps


def test_one_models_arrivals_do_not_depend_on_anothers_rate() -> None:
    fewer = (TRAFFIC[0], Traffic("b", 10.0, 40.0))
    mine = [[a for a in poisson(traffic, 5.0, seed=1) if a.model == "a"] for traffic in (TRAFFIC, fewer)]
    assert mine[0] == mine[1]


def test_summary_accounts_for_every_request() -> None:
    summary = summarise([outcome(10), outcome(50), outcome(51), outcome(5, "rejected"), outcome(9, "failed")], 2.0)
    assert (summary.requests, summary.met, summary.missed, summary.rejected, summary.failed) == (5, 2, 1, 1, 1)
    assert summary.goodput_per_s == 1.0
    assert summary.met_share == 0.4
    assert summary.p50_ms == pytest.approx(50)
    assert summary.p99_ms == pytest.approx(51)


def test_summary_of_nothing() -> None:
    summary = summarise([], 0.0)
    assert summary.requests == 0
    assert all(map(math.isnan, (summary.p50_ms, summary.goodput_per_s, summary.met_share)))


@pytest.mark.parametrize(("percent", "value"), [(0, 1.0), (50, 2.0), (51, 3.0), (99, 4.0), (100, 4.0)])
def test_percentile_is_a_measured_value(percent: float, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], percent) == value


def test_latency_counts_from_the_planned_instant_and_lateness_is_told() -> None:
    late = outcome(60, sent_s=0.04)
    assert late.latency_ms == pytest.approx(60)
    assert not late.met
    assert lateness_ms([late]) == pytest.approx(40)


def test_counts_are_summed_over_labels_not_asked_for() -> None:
    counts = parse(METRICS)
    assert counts.total("isochrone_decisions_total", decision="launch") == 7
    assert counts.total("isochrone_decisions_total", model="a") == 4
    assert counts.total("isochrone_decisions_total", decision="split") == 0
    assert counts.mean("isochrone_queue_us") == 1125.0
    assert counts.total("nv_inference_count") == 0


def test_counts_of_an_interval_and_of_two_servers() -> None:
    counts = parse(METRICS)
    assert (counts + counts - counts) == counts
    assert (counts - counts).total("isochrone_decisions_total") == 0
    assert parse("").values == {}


def test_quantiles_are_interpolated_over_all_models() -> None:
    counts = parse(METRICS)
    assert counts.quantile("isochrone_queue_us", 0.1) == 250.0
    assert counts.quantile("isochrone_queue_us", 0.4) == 750.0
    assert counts.quantile("isochrone_queue_us", 0.9) == 1000.0  # in the last bucket: its lower bound
    assert math.isnan(counts.quantile("isochrone_execution_us", 0.5))


class FakeClient:
    """Answers at once as `reply(model)` says: an error, "silence", "interrupt", or anything else for a result."""

    def __init__(self, reply: Callable[[str], Exception | str]) -> None:
        self._reply = reply
        self.calls: list[dict[str, Any]] = []

    def __call__(self, _url: str) -> FakeClient:
        return self

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def is_server_live(self) -> bool:
        return True

    def async_infer(self, model: str, inputs: object, callback: Callable[..., None], **options: Any) -> None:
        self.calls.append({"model": model, "inputs": inputs, **options})
        reply = self._reply(model)
        if reply == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        elif reply != "silence":
            callback(result=SimpleNamespace(), error=reply if isinstance(reply, Exception) else None)


PLAN = tuple(Arrival(0.0, model, 20.0, 2) for model in ("a", "b", "c"))
PAYLOADS: dict[str, list[Any]] = {"a": [1], "b": [2], "c": [3]}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], Exception | str]], FakeClient]:
    def serve(reply: Callable[[str], Exception | str]) -> FakeClient:
        client = FakeClient(reply)
        monkeypatch.setattr("tritonclient.grpc.InferenceServerClient", client)
        monkeypatch.setattr(load, "_LEAD_S", 0.0)
        monkeypatch.setattr(load, "_GRACE_S", 0.0)
        return client

    return serve


def test_a_run_gives_an_outcome_per_arrival_in_order(serve: Callable[..., FakeClient]) -> None:
    refusals = {
        "b": InferenceServerException(
            "model 'b': the request cannot meet its deadline: 9 ms", "StatusCode.UNAVAILABLE"
        ),
        "c": InferenceServerException("failed to connect to all addresses", "StatusCode.UNAVAILABLE"),
    }
    serve(lambda model: refusals.get(model, "answer"))
    outcomes = run_load("url", PLAN, PAYLOADS)
    assert [(o.model, o.status) for o in outcomes] == [("a", "ok"), ("b", "rejected"), ("c", "failed")]
    assert first_error(outcomes) == "[StatusCode.UNAVAILABLE] failed to connect to all addresses"
    assert is_rejection(refusals["b"])


def test_deadline_and_class_travel_with_the_request(serve: Callable[..., FakeClient]) -> None:
    client = serve(lambda _: "answer")
    run_load("url", PLAN[:1], PAYLOADS, timeout_s=3.0)
    (call,) = client.calls
    assert call["inputs"] == [1]
    assert call["client_timeout"] == 3.0
    assert call["parameters"]["priority_class"] == 2
    assert call["parameters"]["deadline_ns"] == pytest.approx(time.time_ns() + 20_000_000, abs=10_000_000_000)


def test_a_run_ends_without_answers_and_bounds_what_is_in_flight(serve: Callable[..., FakeClient]) -> None:
    client = serve(lambda _: "silence")
    outcomes = run_load("url", PLAN, PAYLOADS, timeout_s=0.01, in_flight_max=2)
    assert [(o.status, o.error) for o in outcomes[:2]] == [("failed", "no answer")] * 2
    assert "2 are in flight" in outcomes[2].error
    assert len(client.calls) == 2


def test_an_interrupted_run_hands_over_what_was_answered(serve: Callable[..., FakeClient]) -> None:
    serve(lambda model: "interrupt" if model == "c" else "answer")
    with pytest.raises(LoadInterrupted) as interrupted:
        run_load("url", PLAN, PAYLOADS)
    assert [o.model for o in interrupted.value.outcomes] == ["a", "b"]
