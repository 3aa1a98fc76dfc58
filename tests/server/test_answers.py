"""Plain tritonclient against the six models of the model repository: answers are ONNX Runtime's own."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, shared_memory

from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, load, remember_profile, request
from zoo.catalog import MODELS, is_current, write
from zoo.inputs import random_inputs

Arrays = dict[str, npt.NDArray[Any]]

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"
MAX_BATCH_SIZE = 8
CLIENTS = 32
SIZES = (1, 2, 3, 5, 8)  # of the requests that the clients send at once
RELEASED_WITHIN_S = 10.0
"""A region of shared memory is free this long after its answer at the latest."""
BESIDE_OTHERS = 1e-4
"""Rows that ran in a batch of another size may differ by this share of the output's largest magnitude."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if all(is_current(name, "small", REPOSITORY) for name in MODELS):
        return REPOSITORY
    made = tmp_path_factory.mktemp("model_repository")
    for name in MODELS:
        write(name, "small", made)
    return made


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for name in MODELS:
            remember_profile(server, repository / name, solo_ms=10, max_batch_size=MAX_BATCH_SIZE)
        assert load(server, MODELS) == {}
        yield server


class Reference:
    """ONNX Runtime itself, one thread per run as in the server."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._session = cache(self._open)
        self.answer = cache(self._answer)

    def inputs(self, model: str, rows: int, seed: int) -> Arrays:
        return random_inputs(self._session(model).get_inputs(), rows, seed)

    def _answer(self, model: str, rows: int, seed: int) -> Arrays:
        session = self._session(model)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, self.inputs(model, rows, seed)), strict=True))

    def _open(self, model: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = self._repository / model / "1" / "model.onnx"
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def reference(repository: Path) -> Reference:
    return Reference(repository)


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: EmbeddedServer) -> Iterator[Any]:
    with closing(connect(server, request.param)) as client:
        yield client


def connect(server: EmbeddedServer, protocol: str) -> Any:
    if protocol == "http":
        return triton_http.InferenceServerClient(server.http_url, concurrency=4, network_timeout=120.0)
    return triton_grpc.InferenceServerClient(server.grpc_url)


def module_of(client: Any) -> Any:
    return triton_http if isinstance(client, triton_http.InferenceServerClient) else triton_grpc


@pytest.mark.parametrize("model", MODELS)
def test_infer_is_onnx_runtime_bit_for_bit(model: str, client: Any, reference: Reference) -> None:
    for rows in (1, 3, MAX_BATCH_SIZE):
        inputs = request(module_of(client), reference.inputs(model, rows, seed=rows))
        assert_equal(client.infer(model, inputs), reference.answer(model, rows, seed=rows))


@pytest.mark.parametrize("model", MODELS)
def test_shared_memory_in_and_out(model: str, client: Any, reference: Reference) -> None:
    expected = reference.answer(model, 2, seed=7)
    with closing(Shared(client, "in", reference.inputs(model, 2, seed=7))) as given:
        inputs = [module_of(client).InferInput(n, list(a.shape), np_to_triton_dtype(a.dtype)) for n, a in given.arrays]
        given.point(inputs)
        assert_equal(client.infer(model, inputs), expected)
        with closing(Shared(client, "out", {n: np.zeros_like(a) for n, a in expected.items()})) as taken:
            outputs = [module_of(client).InferRequestedOutput(name) for name in expected]
            taken.point(outputs)
            client.infer(model, inputs, outputs=outputs)
            for name, array in expected.items():
                np.testing.assert_array_equal(taken.read(name), array, strict=True)


def test_async_infer_over_http(server: EmbeddedServer, reference: Reference) -> None:
    with closing(connect(server, "http")) as client:
        asked = {
            model: client.async_infer(model, request(triton_http, reference.inputs(model, 2, seed=3)))
            for model in MODELS
        }
        for model, answer in asked.items():
            assert_close(answer.get_result(), reference.answer(model, 2, seed=3))


def test_async_infer_over_grpc(server: EmbeddedServer, reference: Reference) -> None:
    answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    with closing(connect(server, "grpc")) as client:
        for model in MODELS:
            inputs = request(triton_grpc, reference.inputs(model, 2, seed=3))
            client.async_infer(
                model, inputs, callback=lambda result, error: answers.put((result, error)), request_id=model
            )
        arrived = [answers.get(timeout=60) for _ in MODELS]
    for result, error in arrived:
        assert error is None
        assert_close(result, reference.answer(result.get_response().id, 2, seed=3))
    assert {result.get_response().id for result, _ in arrived} == set(MODELS)


def test_32_clients_at_once_with_mixed_batch_sizes(server: EmbeddedServer, reference: Reference) -> None:
    for model in MODELS:  # ahead of time, so that the clients are not slowed down
        for rows in SIZES:
            reference.answer(model, rows, seed=rows)

    def one_client(number: int) -> int:
        with closing(connect(server, ("http", "grpc")[number % 2])) as client:
            for turn, model in enumerate(MODELS):
                rows = SIZES[(number + turn) % len(SIZES)]
                inputs = request(module_of(client), reference.inputs(model, rows, seed=rows))
                assert_close(client.infer(model, inputs), reference.answer(model, rows, seed=rows))
        return number

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert list(pool.map(one_client, range(CLIENTS))) == list(range(CLIENTS))


class Shared:
    """System shared memory that the server knows of, one region per array."""

    def __init__(self, client: Any, kind: str, arrays: Arrays) -> None:
        self._client = client
        self.arrays = list(arrays.items())
        self._regions: dict[str, tuple[str, Any]] = {}
        for name, array in self.arrays:
            region = f"isochrone_test_{os.getpid()}_{kind}_{name}"
            handle = shared_memory.create_shared_memory_region(region, f"/{region}", array.nbytes)
            shared_memory.set_shared_memory_region(handle, [array])
            client.register_system_shared_memory(region, f"/{region}", array.nbytes)
            self._regions[name] = (region, handle)

    def point(self, tensors: list[Any]) -> None:
        for tensor, (name, array) in zip(tensors, self.arrays, strict=True):
            tensor.set_shared_memory(self._regions[name][0], array.nbytes)

    def read(self, name: str) -> npt.NDArray[Any]:
        array = dict(self.arrays)[name]
        content: npt.NDArray[Any] = shared_memory.get_contents_as_numpy(
            self._regions[name][1], array.dtype, array.shape
        )
        return content

    def close(self) -> None:
        for region, handle in self._regions.values():
            try:
                self._unregister(region)
            finally:
                shared_memory.destroy_shared_memory_region(handle)

    def _unregister(self, region: str) -> None:
        """Triton's frontends send an answer first and let go of its regions after, and refuse in between."""
        until = time.monotonic() + RELEASED_WITHIN_S
        while True:
            try:
                self._client.unregister_system_shared_memory(region)
                return
            except InferenceServerException as refusal:
                if "currently in use" not in str(refusal) or time.monotonic() > until:
                    raise
            time.sleep(0.01)


def assert_equal(result: Any, expected: Arrays) -> None:
    for name, array in expected.items():
        np.testing.assert_array_equal(result.as_numpy(name), array, strict=True)


def assert_close(result: Any, expected: Arrays) -> None:
    for name, array in expected.items():
        np.testing.assert_allclose(result.as_numpy(name), array, rtol=0, atol=BESIDE_OTHERS * np.abs(array).max())
