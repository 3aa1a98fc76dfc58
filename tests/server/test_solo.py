"""Who is refused is decided by what batches really take alone, by shape: where the profile was a guess, or is wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tritonclient.grpc as triton_grpc
from onnx import helper
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, load, remember_profile, request
from tests.server.harness import graph, mlp, write_model

pytestmark = pytest.mark.alone

STRICT = 'backend: "isochrone"\nparameters { key: "on_miss" value { string_value: "reject" } }\n'
LONG = 1024
"""A sequence that takes some 50 ms or more; of one element it takes nothing to speak of."""


def cubic() -> onnx.ModelProto:
    """`x` [batch, n] → `y` [batch, n]: (x xᵀ)² summed up, in n³ operations."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["column"]),
        helper.make_node("Unsqueeze", ["x", "first"], ["row"]),
        helper.make_node("MatMul", ["column", "row"], ["square"]),
        helper.make_node("MatMul", ["square", "square"], ["cube"]),
        helper.make_node("ReduceSum", ["cube", "last"], ["y"], keepdims=0),
    ]
    weights: dict[str, npt.ArrayLike] = {"last": np.array([2]), "first": np.array([1])}
    return graph(nodes, {"x": (np.float32, ["batch", "n"])}, {"y": (np.float32, ["batch", "n"])}, weights)


def windows() -> onnx.ModelProto:
    """`x` [batch, n] → `y` [batch, 8]: does not run unless n is a multiple of 64, so that it cannot be profiled."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["z"]), helper.make_node("MatMul", ["z", "w"], ["y"])]
    weights = {"shape": np.array([-1, 64]), "w": np.ones((64, 8), np.float32)}
    return graph(nodes, {"x": (np.float32, ["batch", "n"])}, {"y": (np.float32, ["batch", 8])}, weights)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository: Path = tmp_path_factory.mktemp("models")
    write_model(repository, "guessed", windows(), STRICT)
    cheap = write_model(repository, "cheap", mlp(), STRICT + "max_batch_size: 8\n")
    write_model(repository, "sequence", cubic(), STRICT + "max_batch_size: 8\n")
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        remember_profile(server, cheap, solo_ms=200.0, max_batch_size=8)
        assert load(server, ["guessed", "cheap", "sequence"]) == {}
        yield server


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Any]:
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        yield client


def ask(client: Any, model: str, width: int, slo_ms: float) -> None:
    """Raises what the client raises."""
    x = np.ones((1, width), np.float32)
    client.infer(model, request(triton_grpc, {"x": x}), parameters={"slo_ms": slo_ms})


def refused(client: Any, model: str, width: int, slo_ms: float) -> bool:
    try:
        ask(client, model, width, slo_ms)
    except InferenceServerException as error:
        assert "UNAVAILABLE" in error.status()
        found = re.search(r"(\S+) ms predicted from arrival to answer, (\S+) ms allowed", error.message())
        assert found is not None and float(found[1]) > float(found[2])
        return True
    return False


def test_a_model_that_could_not_be_profiled_refuses_no_valid_request(client: Any) -> None:
    """The guess is 10 ms, which refused all; the machine itself may pause for longer than 9 ms now and then."""
    assert sum(refused(client, "guessed", 64, slo_ms=9.0) for _ in range(100)) <= 5


def test_a_shape_that_takes_longer_than_the_profiled_one_is_refused_once_it_was_measured(client: Any) -> None:
    for _ in range(3):
        ask(client, "sequence", LONG, slo_ms=60_000.0)
    assert refused(client, "sequence", LONG, slo_ms=5.0)
    assert not refused(client, "sequence", 3, slo_ms=1_000.0)
    assert not refused(client, "sequence", LONG, slo_ms=60_000.0)


def test_a_latency_believed_too_high_is_corrected_by_one_that_is_let_through(client: Any) -> None:
    began, answers = time.monotonic(), [refused(client, "cheap", 16, slo_ms=100.0)]
    while answers[-1]:
        assert time.monotonic() < began + 20.0, "all are refused"
        answers.append(refused(client, "cheap", 16, slo_ms=100.0))
    assert sum(refused(client, "cheap", 16, slo_ms=100.0) for _ in range(10)) <= 1
