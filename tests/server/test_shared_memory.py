"""Answers that do not fit the shared memory between Triton and a model: the client is told so, the others go on.

A container has 64 MB of it unless it is told otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from onnx import helper
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, eventually, load, metric, remember_profile, request
from tests.server.harness import graph, write_model
from tests.server.small_shm import may_mount, small_shm

pytestmark = pytest.mark.skipif(not may_mount(), reason="needs the right to mount a /dev/shm of its own")

MEGABYTES = 64
CONFIG = 'backend: "isochrone"\nmax_batch_size: 0\n'
SPREAD = graph(
    [helper.make_node("Expand", ["one", "n"], ["y"])],
    {"n": (np.int64, [1])},
    {"y": (np.float32, ["many"])},
    {"one": np.ones(1, np.float32)},
)
"""`n` [1] → `y` FP32 [n]: a small request for an answer of any size."""
TEXTS = graph(
    [helper.make_node("Expand", ["text", "n"], ["y"])],
    {"n": (np.int64, [1])},
    {"y": (object, ["many"])},
    {"text": np.array(["grün" * 250], object)},
)
TEXT_BYTES = len("grün".encode()) * 250
COPY = graph([helper.make_node("Identity", ["x"], ["y"])], {"x": (np.float32, [1, "n"])}, {"y": (np.float32, [1, "n"])})
MODELS = {"spread": SPREAD, "texts": TEXTS, "copy": COPY}
INTERNAL = {"http": "500", "grpc": "INTERNAL"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("models")
    tritonserver = small_shm(tmp_path_factory.mktemp("triton"), MEGABYTES)
    for name, model in MODELS.items():
        write_model(repository, name, model, CONFIG)
    with EmbeddedServer(repository, extra=EXPLICIT, tritonserver=tritonserver) as server:
        for name in MODELS:
            remember_profile(server, repository / name, solo_ms=1)
        assert load(server, MODELS) == {}
        yield server
        stopping_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - stopping_s < 15.0  # nobody waits for an answer


def ask(server: EmbeddedServer, model: str, count: int, protocol: str = "grpc") -> Any:
    module: Any = triton_grpc if protocol == "grpc" else triton_http
    url = server.grpc_url if protocol == "grpc" else server.http_url
    with closing(module.InferenceServerClient(url)) as client:
        options = {"client_timeout": 60.0} if protocol == "grpc" else {}
        return client.infer(model, request(module, {"n": np.array([count], np.int64)}), **options).as_numpy("y")


def expect_too_large(server: EmbeddedServer, model: str, count: int, size: int, protocol: str = "grpc") -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(server, model, count, protocol)
    assert str(caught.value.status()).removeprefix("StatusCode.") == INTERNAL[protocol]
    sentence = str(caught.value.message())
    assert f"model '{model}': its answer of {size / 1e6:.1f} MB does not fit the shared memory" in sentence
    assert " MB of /dev/shm are free; give the container more, as with `docker run --shm-size=2g`" in sentence


def failed(server: EmbeddedServer, model: str) -> float:
    return metric(server, "isochrone_requests_total", model=model, outcome="failed")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_answer_that_does_not_fit(protocol: str, server: EmbeddedServer) -> None:
    before = failed(server, "spread")
    for _ in range(3):
        np.testing.assert_array_equal(ask(server, "spread", 5, protocol), np.ones(5, np.float32))
        expect_too_large(server, "spread", 20_000_000, 80_000_000, protocol)
    np.testing.assert_array_equal(ask(server, "spread", 5_000_000, protocol), np.ones(5_000_000, np.float32))
    eventually(lambda: failed(server, "spread") == before + 3)


def test_text_that_does_not_fit(server: EmbeddedServer) -> None:
    count = 80_000_000 // TEXT_BYTES
    expect_too_large(server, "texts", count, count * (4 + TEXT_BYTES))
    assert ask(server, "texts", 2).tolist() == [("grün" * 250).encode()] * 2


def test_many_at_once_get_their_answer_or_the_sentence(server: EmbeddedServer) -> None:
    """Each by itself would fit; what is free changes between the look and the answer."""

    def one(count: int) -> bool:
        try:
            return len(ask(server, "spread", count)) == count
        except InferenceServerException as error:
            assert "does not fit the shared memory" in str(error.message())
            return False

    sizes = [6_000_000, 1000, 2_000_000, 7_000_000, 100_000, 1000, 4_000_000, 1000] * 2
    with ThreadPoolExecutor(len(sizes)) as pool:
        answers = dict(enumerate(pool.map(one, sizes)))
    assert all(answers[i] for i, count in enumerate(sizes) if count == 1000)


def test_an_input_that_does_not_fit_is_told_by_triton(server: EmbeddedServer) -> None:
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("copy", request(triton_grpc, {"x": np.ones((1, 20_000_000), np.float32)}), client_timeout=60.0)
        assert "--shm-size" in str(caught.value.message())
        answer = client.infer("copy", request(triton_grpc, {"x": np.ones((1, 7), np.float32)}), client_timeout=60.0)
        np.testing.assert_array_equal(answer.as_numpy("y"), np.ones((1, 7), np.float32))
