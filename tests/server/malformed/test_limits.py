"""What one request or one config.pbtxt does to tritonserver 2.51 before this backend hears of it.

docs/reference/limits.md has the list. Each test ends a server of its own, and fails when Triton learns better: then the
generators here may have such requests, too.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, eventually, load, remember_profile, request
from tests.server.harness import write_model
from tests.server.malformed.asked import CONFIGS, MLP, Asked, Tensor, to_grpc

pytestmark = pytest.mark.slow
_INFER = "/inference.GRPCInferenceService/ModelInfer"
X = np.ones((1, 4), np.float32)


@contextmanager
def serving(repository: Path, *models: str) -> Iterator[EmbeddedServer]:
    """A server with these models of `asked`."""
    for name in models:
        write_model(repository, name, *CONFIGS[name])
    with EmbeddedServer(repository, extra=[*EXPLICIT, "--exit-timeout-secs=1"]) as server:
        for name in models:
            remember_profile(server, repository / name, solo_ms=0.1, max_batch_size=1 if name == "free" else 8)
        assert load(server, models) == {}
        yield server


def sent(server: EmbeddedServer, asked: Asked, timeout_s: float = 10.0) -> str:
    """The error of a gRPC request, empty where it was answered."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        try:
            channel.unary_unary(_INFER)(to_grpc(asked).SerializeToString(), timeout=timeout_s)
        except grpc.RpcError as error:
            return f"{error.code().name} {error.details()}"
    return ""


def answers(server: EmbeddedServer) -> bool:
    """True where "target" does."""
    with closing(triton_http.InferenceServerClient(server.http_url)) as client:
        try:
            client.infer("target", request(triton_http, {"x": X}))
        except InferenceServerException:
            return False
    return True


def ended_by(server: EmbeddedServer) -> int:
    """The signal that a server ends by."""
    process = server._process
    assert process is not None
    return -process.wait(timeout=60.0)


@pytest.mark.parametrize(
    ("shape", "data", "by"),
    [("[7, 4294967296]", b"[1]", signal.SIGABRT), ("[1, 4]", b"[" * 100_000 + b"]" * 100_000, signal.SIGSEGV)],
    ids=["huge shape", "deep nesting"],
)
def test_json_data_that_ends_tritonserver(shape: str, data: bytes, by: int, tmp_path: Path) -> None:
    with serving(tmp_path, "free") as server:
        head = f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": {shape}, "data": '.encode()
        body = head + data + b"}]}"
        host, port = server.http_url.split(":")
        with socket.create_connection((host, int(port)), timeout=30.0) as connection:
            connection.sendall(
                b"POST /v2/models/free/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        assert ended_by(server) == by


def test_classification_of_text_ends_tritonserver(tmp_path: Path) -> None:
    with serving(tmp_path, "text") as server:
        text = np.array([[b"a", b"b", b"c", b"d"]], object)
        with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
            output = triton_grpc.InferRequestedOutput("y", class_count=2)
            with pytest.raises(InferenceServerException):
                client.infer("text", request(triton_grpc, {"x": text}), outputs=[output], client_timeout=10.0)
        assert ended_by(server) == signal.SIGFPE


def test_a_shape_whose_size_is_beyond_64_bits_ends_the_models_process(tmp_path: Path) -> None:
    with serving(tmp_path, "free", "target") as server:
        pid = server.stub_pids()["free"]
        said = sent(server, Asked("free", [Tensor("x", "FP32", [1 << 32, 1 << 32], b"")]))
        assert "Stub process 'free_0' is not healthy" in said
        eventually(lambda: server.stub_pids().get("free") != pid)
        assert answers(server)


def test_an_input_of_no_rows_and_no_data_is_never_answered(tmp_path: Path) -> None:
    with serving(tmp_path, "pair", "target") as server:
        said = sent(server, Asked("pair", [Tensor(name, "INT64", [0, 0], b"") for name in ("a", "b")]), timeout_s=3.0)
        assert said.startswith("DEADLINE_EXCEEDED")
        assert answers(server)


@pytest.mark.parametrize("rows", [0, 1 << 32])
def test_an_input_of_no_rows_with_the_data_of_one_is_refused(rows: int, tmp_path: Path) -> None:
    with serving(tmp_path, "target") as server:
        said = sent(server, Asked("target", [Tensor("x", "FP32", [rows, 4], X.tobytes())]))
        assert said.endswith("input 'x' has 0 rows, as Triton counts them modulo 2^32; it must have 1 or more")


def test_a_model_file_whose_name_has_a_space_is_loaded_without_end(tmp_path: Path) -> None:
    config = 'backend: "isochrone"\nmax_batch_size: 8\ndefault_model_filename: "a b.onnx"\n'
    write_model(tmp_path, "spaced", MLP, config, filename="a b.onnx")
    with serving(tmp_path, "target") as server:
        with (
            closing(triton_http.InferenceServerClient(server.http_url, network_timeout=10.0)) as client,
            pytest.raises(TimeoutError),
        ):
            client.load_model("spaced")
        assert answers(server)


def test_a_long_name_in_a_refusal_hides_it_over_grpc(tmp_path: Path) -> None:
    with serving(tmp_path, "target") as server:
        asked = Asked("target", [Tensor("x", "FP32", [1, 4], X.tobytes())], parameters={"slo_ms": -1}, id="i" * 100_000)
        said = sent(server, asked)
        assert "metadata size exceeds" in said
        asked.id = "i" * 1_000
        assert sent(server, asked).endswith("slo_ms is -1; it must be a number of milliseconds above 0, at most 1e9")


def test_a_long_first_line_is_not_answered_over_http(tmp_path: Path) -> None:
    with serving(tmp_path, "target") as server:
        host, port = server.http_url.split(":")
        with socket.create_connection((host, int(port)), timeout=10.0) as connection:
            connection.sendall(b"POST /v2/models/" + b"m" * 70_000 + b"/infer HTTP/1.1\r\nHost: x\r\n\r\n")
            began = time.monotonic()
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
            assert time.monotonic() - began < 10.0
        assert answers(server)
