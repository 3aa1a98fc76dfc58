"""Each request has its own answer, whatever is wrong with it or with others, and errors name the request."""

from __future__ import annotations

import queue
import re
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, eventually, load, metric, remember_profile, request
from tests.server.harness import batchmates, identity, mlp, write_model

BACKEND = 'backend: "isochrone"\n'
MODELS = {
    "plain": (mlp(width=4), BACKEND + "max_batch_size: 8\n"),
    "wide": (identity(np.float32, ("n",)), BACKEND + "max_batch_size: 8\n"),
    "strict": (
        batchmates(20),
        BACKEND + 'max_batch_size: 1\nparameters { key: "on_miss" value { string_value: "reject" } }\n',
    ),
}
X = np.ones((1, 4), np.float32)
LATE = 3
HUGE = np.ones((1, 16 << 20), np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("models")
    for name, (model, config) in MODELS.items():
        write_model(repository, name, model, config)
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for name in MODELS:
            remember_profile(server, repository / name, 20 if name == "strict" else 0.1, 1 if name == "strict" else 8)
        assert load(server, MODELS) == {}
        yield server
        assert server.stop() == 0


# Names


def test_errors_on_a_stream_name_their_request(server: EmbeddedServer) -> None:
    answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        inputs = request(triton_grpc, {"x": X})
        client.async_stream_infer("plain", inputs, request_id="good")
        client.async_stream_infer("plain", inputs, request_id="bad one", parameters={"slo_ms": -1})
        late = request(triton_grpc, {"x": X[:, :1]})
        for i in range(LATE):
            client.async_stream_infer("strict", late, request_id=f"late {i}", parameters={"slo_ms": 0.001})
        client.async_stream_infer("plain", inputs, parameters={"slo_ms": -1})
        given = [answers.get(timeout=60) for _ in range(3 + LATE)]
        client.stop_stream()
    served = [result.get_response().id for result, error in given if error is None]
    assert served[0] == "good"
    assert len(served) < LATE  # one a second is let through, lest a latency that is believed too high stay so
    bad = "model 'plain': slo_ms is -1; it must be a number of milliseconds above 0, at most 1e9"
    errors = sorted(str(error.message()) for _, error in given if error is not None)
    assert errors[0] == f"[request id: bad one] {bad}"
    assert all(
        re.match(r"\[request id: late \d\] model 'strict': the request cannot meet its deadline: ", error)
        for error in errors[1:-1]
    )
    assert len(errors) >= 3
    assert errors[-1] == bad


# Numbers in strings


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_number_may_come_as_a_string(protocol: str, server: EmbeddedServer) -> None:
    module: Any = triton_http if protocol == "http" else triton_grpc
    url = server.http_url if protocol == "http" else server.grpc_url

    def ask(model: str, x: Any, **parameters: Any) -> Any:
        return client.infer(model, request(module, {"x": x}), parameters=parameters)

    with closing(module.InferenceServerClient(url)) as client:
        ask("plain", X, slo_ms="60000.5", priority_class="2")
        ask("strict", X[:, :1], deadline_ns=str(time.time_ns() + 60_000_000_000))
        for late in ({"slo_ms": "0.001"}, {"deadline_ns": str(time.time_ns() - 1)}):
            with pytest.raises(InferenceServerException, match="the request cannot meet its deadline"):
                ask("strict", X[:, :1], **late)
        for key, value in (("slo_ms", "soon"), ("deadline_ns", "1e18"), ("priority_class", "first")):
            with pytest.raises(InferenceServerException, match=f"{key} is '{value}'; it must be "):
                ask("plain", X, **{key: value})


# What raises


def test_a_request_that_there_is_no_memory_for(server: EmbeddedServer) -> None:
    """Among others: these are answered. Where there is none for the copy that Triton makes, the process ends."""
    small = [np.full((1, 4), number, np.float32) for number in range(7)]

    def ask(x: Any) -> Any:
        with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
            try:
                return client.infer("wide", request(triton_grpc, {"x": x}), client_timeout=60.0).as_numpy("y")
            except InferenceServerException as error:
                return error

    for _ in range(2):  # after these Triton's memory for requests of this size is there
        np.testing.assert_array_equal(ask(HUGE), HUGE)
    ask(small[0])  # the last batch, which a lane keeps, is another
    with memory_for(server.stub_pids()["wide"], HUGE.nbytes * 3 // 2), ThreadPoolExecutor(8) as pool:
        refused, *answers = pool.map(ask, [HUGE, *small])
    assert (refused.status(), refused.message()) == (
        "StatusCode.UNAVAILABLE",
        "model 'wide': input 'x' of 67.1 MB cannot be copied: the model's process has no memory left",
    )
    np.testing.assert_array_equal(answers, small)
    np.testing.assert_array_equal(ask(HUGE), HUGE)
    eventually(lambda: outcomes(server, "wide") == {"met": 11, "failed": 1})


@contextmanager
def memory_for(pid: int, more: int) -> Iterator[None]:
    """Let a process have so many bytes more than it has."""
    had = resource.prlimit(pid, resource.RLIMIT_AS)
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + more, had[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, had)


def outcomes(server: EmbeddedServer, model: str) -> dict[str, float]:
    """How many requests of a model had which, without those that none had."""
    names = ("met", "missed", "rejected", "failed", "cancelled")
    counts = {name: metric(server, "isochrone_requests_total", model=model, outcome=name) for name in names}
    return {name: count for name, count in counts.items() if count}
