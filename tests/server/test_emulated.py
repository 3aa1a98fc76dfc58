"""Models of an emulated GPU on a real tritonserver: their answers, their times, and what is refused."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from backend.engine_process.wire.messages import PROTOCOL
from backend.engines.emulated.spec import read_spec
from backend.server.embedded import EmbeddedServer
from backend.tensors import Array
from tests.fakes.emulated import spec, write_spec
from tests.server.control import EXPLICIT, EXPORTED_WITHIN_S, eventually, load, metric, metrics

DEVICE = "emulated-test-0"
SOLO_MS = 20.0
"""Long beside what a busy machine adds."""
CONFIG = 'backend: "isochrone"\ninstance_group [{ kind: KIND_CPU }]\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("models")
    for name in ("one", "two"):
        write_spec(repository, name, spec(DEVICE, SOLO_MS * 1000, pair_sd=0.0), CONFIG)
    bad = spec(DEVICE, pair_sd=0.0)
    bad["batches"][0]["busy_share"] = 1.5
    write_spec(repository, "bad", bad, CONFIG)
    write_spec(repository, "other_device", spec(DEVICE, pair_sd=0.0, pcie_gb_per_s=25.0), CONFIG)
    own = CONFIG + 'parameters { key: "engine_process" value { string_value: "own" } }\n'
    write_spec(repository, "own", spec(DEVICE, pair_sd=0.0), own)
    with EmbeddedServer(repository, extra=[*EXPLICIT]) as server:
        assert load(server, ["one", "two"]) == {}
        yield server
    assert server.stop() == 0


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[triton_grpc.InferenceServerClient]:
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        yield client


def infer(client: triton_grpc.InferenceServerClient, model: str, rows: int = 1) -> Array:
    x = triton_grpc.InferInput("x", [rows, 4], "FP32")
    x.set_data_from_numpy(np.ones((rows, 4), np.float32))
    answer: Array = client.infer(model, [x]).as_numpy("y")
    return answer


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_answers_of_an_emulated_model_have_its_shapes(client: triton_grpc.InferenceServerClient, rows: int) -> None:
    answer = infer(client, "one", rows)

    assert answer.shape == (rows, 2)
    assert not answer.any()


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("bad", "batches[0].busy_share is 1.5, but must be"),
        ("other_device", "device.pcie_gb_per_s of 'emulated-test-0' is 25.0, but must be 11.4"),
        ("own", "parameter 'engine_process' is \"own\""),
    ],
)
def test_a_bad_emulated_model_is_refused_while_the_server_serves_on(
    server: EmbeddedServer, client: triton_grpc.InferenceServerClient, model: str, sentence: str
) -> None:
    assert sentence in load(server, [model])[model]
    assert infer(client, "one").shape == (1, 2)


def test_metrics_of_an_emulated_model_name_its_device(
    server: EmbeddedServer, client: triton_grpc.InferenceServerClient
) -> None:
    infer(client, "one")

    labels = [dict(labels) for name, labels in metrics(server) if name.startswith("isochrone_")]
    devices = {one["device"] for one in labels if one["model"] == "one"}
    assert devices == {DEVICE}


@pytest.mark.alone
@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_engine_processes_of_an_emulated_device_lose_no_request(server: EmbeddedServer, kills: int) -> None:
    lock = Path(server.runtime_dir) / f"{DEVICE}-engines-{PROTOCOL}.lock"
    answers: dict[str, list[Array]] = {"one": [], "two": []}
    enough = threading.Event()

    def ask(model: str) -> None:
        with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
            while not enough.is_set():
                answers[model].append(infer(client, model))

    asking = [threading.Thread(target=ask, args=(model,)) for model in answers]
    for thread in asking:
        thread.start()
    try:
        for _ in range(kills):
            killed = int(lock.read_text())
            os.kill(killed, signal.SIGKILL)
            # A batch is run once more, not twice: both models have to be back.
            wanted = {model: len(found) + 2 for model, found in answers.items()}
            eventually(partial(_have, answers, wanted))
            assert int(lock.read_text()) != killed
    finally:
        enough.set()
        for thread in asking:
            thread.join(timeout=60.0)

    assert all(len(found) >= 2 * kills and {one.shape for one in found} == {(1, 2)} for found in answers.values())


@pytest.mark.alone
def test_emulated_batches_take_what_the_law_says(
    server: EmbeddedServer, client: triton_grpc.InferenceServerClient, tmp_path: Path
) -> None:
    model = read_spec(write_spec(tmp_path, "one", spec(DEVICE, SOLO_MS * 1000, pair_sd=0.0)))
    _, demand = model.demand("one", 1)
    together_ms = SOLO_MS * model.device.law.slowdown(demand, [demand])

    time.sleep(EXPORTED_WITHIN_S)  # of what ran before
    assert _mean_execution_ms(server, client, "one") == pytest.approx(SOLO_MS, abs=1.0)
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as other:
        stop = threading.Event()
        beside = threading.Thread(target=lambda: _until(stop, other))
        beside.start()
        try:
            found_ms = _mean_execution_ms(server, client, "one")
        finally:
            stop.set()
            beside.join()
    # The co-runner pauses between its batches, for its transport.
    assert SOLO_MS + 0.7 * (together_ms - SOLO_MS) < found_ms < together_ms + 1.0


def _have(answers: dict[str, list[Array]], wanted: dict[str, int]) -> bool:
    return all(len(answers[model]) >= number for model, number in wanted.items())


def _until(stop: threading.Event, client: triton_grpc.InferenceServerClient) -> None:
    while not stop.is_set():
        infer(client, "two")


def _mean_execution_ms(server: EmbeddedServer, client: triton_grpc.InferenceServerClient, model: str) -> float:
    """Mean of 30 batches' executions, as the server's metrics have them."""

    def total(what: str) -> float:
        return metric(server, f"isochrone_execution_us_{what}", model=model)

    count, sum_us = total("count"), total("sum")
    for _ in range(30):
        infer(client, model)
    eventually(lambda: total("count") == count + 30)
    return (total("sum") - sum_us) / 30 / 1e3
