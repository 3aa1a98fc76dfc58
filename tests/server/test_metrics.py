"""What becomes of a request, and that /metrics tells the truth about it: deadlines, rejections, cancellations, counts.

The device has one lane; a long run of another model holds it where a test needs requests to wait.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.server.busy import BLOCKING_MS, Asked, Batches, arrived, device_is_busy
from tests.server.control import EXPLICIT, eventually, load, metrics, remember_profile, request
from tests.server.harness import batchmates, mlp, write_model

pytestmark = pytest.mark.alone


SOLO_MS = 20.0
MAX_QUEUE_SIZE = 3
ONE_LANE = 'backend: "isochrone"\nparameters { key: "device_lanes" value { string_value: "1" } }\n'
COUNTERS = {
    "isochrone_requests_total": ("outcome", {"met", "missed", "rejected", "failed", "cancelled"}),
    "isochrone_batches_total": ("", {""}),
    "isochrone_batches_rerun_total": ("", {""}),
    "isochrone_preempted_total": ("", {""}),
    "isochrone_bound_held_total": ("held", {"true", "false"}),
    "isochrone_decisions_total": ("decision", {"launch", "hold", "split", "reject"}),
    "isochrone_fail_open_total": ("", {""}),
    "isochrone_samples_lost_total": ("", {""}),
    "isochrone_interference_seconds_total": ("by", {"not explained"}),
}
TRANSFERS = [("isochrone_transfer_us", ("direction", direction)) for direction in ("in", "out")]
"""On CPU nothing is moved."""
HISTOGRAMS = (
    "isochrone_request_latency_us",
    "isochrone_queue_us",
    "isochrone_execution_us",
    "isochrone_batch_size",
    "isochrone_slowdown_ratio",
    "isochrone_prediction_error_ratio",
    "isochrone_decision_us",
)
GAUGES = ("isochrone_waiting_requests", "isochrone_running_batches", "isochrone_backlog_ms")
UNAVAILABLE = {"http": "503", "grpc": "UNAVAILABLE"}


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    strict = parameter("on_miss", "reject") + parameter("slo_ms", "5") + "max_batch_size: 4\n"
    small = parameter("max_queue_size", str(MAX_QUEUE_SIZE)) + "max_batch_size: 4\n"
    for name, milliseconds, config in (
        ("blocker", BLOCKING_MS, "max_batch_size: 1\n"),
        ("subject", SOLO_MS, "max_batch_size: 4\n"),
        ("strict", 4 * SOLO_MS, strict),  # so that it takes more than its 5 ms on any core
        ("small", SOLO_MS, small),
    ):
        write_model(repository, name, batchmates(milliseconds), ONE_LANE + config)
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        remember_profile(server, repository / "blocker", solo_ms=BLOCKING_MS)
        for name in ("subject", "strict", "small"):
            remember_profile(server, repository / name, solo_ms=SOLO_MS, max_batch_size=4)
        assert load(server, ["blocker", "subject", "strict", "small"]) == {}
        yield server


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Any]:
    """For what needs to be cancelled or to wait."""
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        yield client


def ask(server: EmbeddedServer, model: str, protocol: str = "grpc", **options: Any) -> None:
    """One request of one row; raises what the client raises."""
    module: Any = triton_grpc if protocol == "grpc" else triton_http
    url = server.grpc_url if protocol == "grpc" else server.http_url
    with closing(module.InferenceServerClient(url)) as client:
        client.infer(model, request(module, {"x": np.ones((1, 1), np.float32)}), **options)


def outcomes(server: EmbeddedServer, model: str) -> Counter[str]:
    """Requests of a model so far, by outcome."""
    found: Counter[str] = Counter()
    for (name, labels), value in metrics(server).items():
        if name == "isochrone_requests_total" and ("model", model) in labels:
            found[dict(labels)["outcome"]] = int(value)
    return found


@contextmanager
def counted(server: EmbeddedServer, model: str, **expected: int) -> Iterator[None]:
    """The body makes exactly these outcomes. Counts reach /metrics a moment after the answers."""
    before = outcomes(server, model)
    yield
    want = before + Counter(expected)
    eventually(lambda: +outcomes(server, model) == want)


IN_TIME: tuple[Callable[[], dict[str, Any]], ...] = (
    dict,
    lambda: {"parameters": {"slo_ms": 60_000}},
    lambda: {"parameters": {"slo_ms": 60_000.5}, "timeout": 1},
    lambda: {"parameters": {"deadline_ns": time.time_ns() + 60_000_000_000}},
    lambda: {"timeout": 60_000_000},
)
TOO_LATE: tuple[Callable[[], dict[str, Any]], ...] = (
    lambda: {"parameters": {"slo_ms": 1}},
    lambda: {"parameters": {"slo_ms": 0.001}, "timeout": 60_000_000},
    lambda: {"parameters": {"deadline_ns": time.time_ns() + 1_000_000}},
    lambda: {"parameters": {"deadline_ns": time.time_ns() - 1_000_000}},
    lambda: {"timeout": 1_000},
)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_deadline_is_met_or_missed(protocol: str, server: EmbeddedServer) -> None:
    with counted(server, "subject", met=len(IN_TIME), missed=len(TOO_LATE)):
        for options in (*IN_TIME, *TOO_LATE):
            ask(server, "subject", protocol, **options())


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_cannot_be_in_time_is_rejected_where_asked_for(protocol: str, server: EmbeddedServer) -> None:
    in_time = [options for options in IN_TIME if options is not dict]
    with counted(server, "strict", met=len(in_time), rejected=len(TOO_LATE) + 1):
        for options in in_time:
            ask(server, "strict", protocol, **options())
        for options in (*TOO_LATE, dict):  # without a word in the request, the model's 5 ms hold
            with pytest.raises(InferenceServerException) as caught:
                ask(server, "strict", protocol, **options())
            assert caught.value.status().removeprefix("StatusCode.") == UNAVAILABLE[protocol]
            sentence = re.fullmatch(
                r"model 'strict': the request cannot meet its deadline: (\S+) ms predicted from arrival to answer, "
                r"(\S+) ms allowed",
                caught.value.message(),
            )
            assert sentence is not None, caught.value.message()
            predicted, allowed = (float(number) for number in sentence.groups())
            assert predicted > allowed
            assert allowed <= 5


def test_a_full_queue_refuses_at_once(server: EmbeddedServer, client: Any) -> None:
    waiting = Batches(client, "small")
    with counted(server, "small", met=MAX_QUEUE_SIZE, rejected=2), device_is_busy(client):
        for number in range(1, MAX_QUEUE_SIZE + 1):
            with arrived(client, "small"):
                waiting.ask(Asked(number))
        for protocol in ("http", "grpc"):
            with pytest.raises(InferenceServerException) as caught:
                ask(server, "small", protocol)
            assert caught.value.status().removeprefix("StatusCode.") == UNAVAILABLE[protocol]
            assert caught.value.message() == (
                f"model 'small': {MAX_QUEUE_SIZE} requests are waiting already, which is its max_queue_size"
            )
    assert waiting.wait() == [[1, 2, 3]]


def test_a_cancelled_request_is_not_run(server: EmbeddedServer, client: Any) -> None:
    kept, dropped = Batches(client, "subject"), Batches(client, "subject")
    with counted(server, "subject", met=2, cancelled=1):
        with device_is_busy(client):
            for number, batches in ((1, kept), (2, dropped), (3, kept)):
                with arrived(client, "subject"):
                    call = batches.ask(Asked(number))
                if batches is dropped:
                    call.cancel()
            eventually(lambda: outcomes(server, "subject")["cancelled"] > 0)
        assert kept.wait() == [[1, 3]]
    assert dropped.ended == []


def test_a_bad_request_is_counted_as_failed(server: EmbeddedServer) -> None:
    with counted(server, "subject", failed=1), pytest.raises(InferenceServerException):
        ask(server, "subject", parameters={"slo_ms": "fast"})


def test_every_metric_of_the_contract(server: EmbeddedServer) -> None:
    with counted(server, "subject", met=1):
        ask(server, "subject")
    found = metrics(server)
    for model in ("blocker", "subject", "strict", "small"):
        own = {("model", model), ("version", "1")}
        for name, (label, values) in COUNTERS.items():
            expected = {frozenset(own | ({(label, value)} if label else set())) for value in values}
            assert {labels for other, labels in found if other == name and own <= labels} == expected
        for name in GAUGES:
            assert (name, frozenset(own | {("device", "cpu")})) in found
        for name in HISTOGRAMS:
            assert (f"{name}_count", frozenset(own)) in found
            assert (f"{name}_sum", frozenset(own)) in found
            assert {
                frozenset(key for key, _ in labels)
                for other, labels in found
                if other == f"{name}_bucket" and own <= labels
            } == {frozenset({"model", "version", "le"})}
        for name, direction in TRANSFERS:
            labels = frozenset(own | {direction})
            assert found[f"{name}_count", labels] == found[f"{name}_sum", labels] == 0
            assert found[f"{name}_bucket", labels | {("le", "+Inf")}] == 0
    histograms = (*HISTOGRAMS, *dict(TRANSFERS))
    contract = {*COUNTERS, *GAUGES, *(f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum"))}
    assert {name for name, _ in found if name.startswith("isochrone_")} == contract


def test_the_numbers_agree_with_each_other(server: EmbeddedServer) -> None:
    """Of all that the tests here asked for. A scrape may show half of an export: one that agrees counts."""

    def agree() -> bool:
        try:
            check_numbers(server)
        except AssertionError:
            return False
        return True

    with counted(server, "subject", met=1):
        ask(server, "subject", parameters={"slo_ms": 60_000})
    try:
        eventually(agree)
    except AssertionError:
        check_numbers(server)  # names the numbers that do not
        raise


def check_numbers(server: EmbeddedServer) -> None:
    found = metrics(server)
    for model in ("subject", "strict", "small", "blocker"):
        own = {("model", model), ("version", "1")}

        def value(name: str, *labels: tuple[str, str], own: set[tuple[str, str]] = own) -> float:
            return found[name, frozenset(own | set(labels))]

        for name in HISTOGRAMS:
            buckets = {
                float(dict(labels)["le"]): count
                for (other, labels), count in found.items()
                if other == f"{name}_bucket" and own <= labels
            }
            counts = [buckets[bound] for bound in sorted(buckets)]
            assert counts == sorted(counts)
            assert buckets[float("inf")] == value(f"{name}_count")
            least = sum(
                low * (high_count - low_count)
                for low, low_count, high_count in zip(sorted(buckets), counts, counts[1:], strict=False)
            )
            assert least <= value(f"{name}_sum") + 1e-6
        outcome = {
            name: value("isochrone_requests_total", ("outcome", name))
            for name in COUNTERS["isochrone_requests_total"][1]
        }
        answered, batches = outcome["met"] + outcome["missed"], value("isochrone_batches_total")
        assert value("isochrone_request_latency_us_count") == value("isochrone_queue_us_count") == answered
        assert value("isochrone_batch_size_sum") == answered  # each had one row
        for name in ("batch_size", "execution_us", "slowdown_ratio", "prediction_error_ratio"):
            assert value(f"isochrone_{name}_count") == batches
        held = [value("isochrone_bound_held_total", ("held", held)) for held in ("true", "false")]
        decided = [value("isochrone_decisions_total", ("decision", name)) for name in ("launch", "split")]
        assert sum(held) == sum(decided) == batches
        assert value("isochrone_fail_open_total") == 0
        assert value("isochrone_queue_us_sum") <= value("isochrone_request_latency_us_sum")


def test_counts_go_on_when_a_model_with_two_instances_is_reloaded(server: EmbeddedServer, repository: Path) -> None:
    """Old and new processes share Triton's counters: the first one to delete them would take the server down."""
    pid = server.pid
    for load_number in range(1, 4):
        config = (
            ONE_LANE + parameter("slo_ms", str(60_000 + load_number)) + "instance_group [{ count: 2 kind: KIND_CPU }]\n"
        )
        write_model(repository, "twice", mlp(), config)
        remember_profile(server, repository / "twice", solo_ms=0.1, max_batch_size=8)
        assert load(server, ["twice"]) == {}
        with closing(triton_http.InferenceServerClient(server.http_url)) as client:
            for _ in range(20):
                client.infer("twice", request(triton_http, {"x": np.ones((1, 16), np.float32)}))
        eventually(lambda total=load_number * 20: outcomes(server, "twice")["met"] == total)  # type: ignore[misc]
    with closing(triton_http.InferenceServerClient(server.http_url)) as client:
        client.unload_model("twice")
        eventually(lambda: not client.is_model_ready("twice"))
    ask(server, "subject")
    assert server.pid == pid
    assert outcomes(server, "twice")["met"] == 60
