"""Models of ours as steps of an ensemble, and called by a Python model: the deadlines of docs/how-to/ensembles.md."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, eventually, load, metric, remember_profile, request
from tests.server.harness import batchmates, identity, mlp, mlp_answer, write_model

BACKEND = 'backend: "isochrone"\nmax_batch_size: 8\n'
REJECT = 'parameters { key: "on_miss" value { string_value: "reject" } }\n'
ONE, TWO = mlp(4, seed=1), mlp(4, seed=2)
MODELS = {
    "one": (ONE, BACKEND),
    "two": (TWO, BACKEND),
    "slow": (batchmates(600), 'backend: "isochrone"\nmax_batch_size: 1\n'),
    "strict": (identity(np.float32, (1,)), BACKEND + REJECT),
}
SLO_MS = 100.0
"""Much less than `slow` takes, much more than `strict`."""
PIPELINE = """
import json

import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        tensor = pb.get_input_tensor_by_name(request, "x")
        given = json.loads(request.parameters())
        given = {key: str(value) if isinstance(value, float) else value for key, value in given.items()}
        for model in ("slow", "strict"):
            asked = pb.InferenceRequest(
                model_name=model,
                request_id=request.request_id(),
                inputs=[pb.Tensor("x", tensor.as_numpy())],
                requested_output_names=["y"],
                parameters=given,
            )
            answer = asked.exec()
            if answer.has_error():
                return pb.InferenceResponse(error=answer.error())
            tensor = pb.get_output_tensor_by_name(answer, "y")
        return pb.InferenceResponse([tensor])
"""
STATUS = {"http": "503", "grpc": "UNAVAILABLE"}
INTERNAL = {"http": "500", "grpc": "INTERNAL"}


def ensemble(*steps: str, width: int, max_batch_size: int = 1) -> str:
    """`x` [width] through the steps, one after the other, to `y`."""
    values = ["x", *(f"v{i}" for i in range(1, len(steps))), "y"]
    chain = ",".join(
        f'{{ model_name: "{step}" model_version: -1 input_map {{ key: "x" value: "{a}" }} '
        f'output_map {{ key: "y" value: "{b}" }} }}'
        for step, a, b in zip(steps, values[:-1], values[1:], strict=True)
    )
    head = f'platform: "ensemble"\nmax_batch_size: {max_batch_size}\n'
    return f"{head}{tensors(width)}ensemble_scheduling {{ step [{chain}] }}"


def tensors(width: int) -> str:
    return "".join(f'{kind} [{{ name: "{name}" data_type: TYPE_FP32 dims: [{width}] }}]\n' for kind, name in KINDS)


KINDS = (("input", "x"), ("output", "y"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("models")
    for name, (model, config) in MODELS.items():
        write_model(repository, name, model, config)
    write_other(repository, "both", ensemble("one", "two", width=4, max_batch_size=8))
    write_other(repository, "chain", ensemble("slow", "strict", width=1))
    write_other(repository, "bls", f'backend: "python"\nmax_batch_size: 1\n{tensors(1)}', PIPELINE)
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for name in MODELS:
            remember_profile(server, repository / name, 300 if name == "slow" else 0.1, 1 if name == "slow" else 8)
        assert load(server, MODELS) == {}
        assert load(server, ["both", "chain", "bls"]) == {}
        yield server
        assert server.stop() == 0


def write_other(repository: Path, name: str, config: str, code: str = "") -> None:
    """A model that is not ours."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    if code:
        (folder / "1" / "model.py").write_text(code)


def ask(server: EmbeddedServer, model: str, x: Any, protocol: str = "grpc", **options: Any) -> Any:
    module: Any = triton_grpc if protocol == "grpc" else triton_http
    url = server.grpc_url if protocol == "grpc" else server.http_url
    with closing(module.InferenceServerClient(url)) as client:
        return client.infer(model, request(module, {"x": x}), **options).as_numpy("y")


X = np.full((1, 1), 7, np.float32)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_two_steps_in_a_row(protocol: str, server: EmbeddedServer) -> None:
    for rows in (1, 3, 8):
        x = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
        expected = mlp_answer(TWO, mlp_answer(ONE, x))
        np.testing.assert_allclose(ask(server, "both", x, protocol), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("model", "protocol"), [("chain", "http"), ("chain", "grpc"), ("bls", "grpc")])
def test_a_latency_starts_anew_at_each_step_and_a_deadline_does_not(
    model: str, protocol: str, server: EmbeddedServer
) -> None:
    missed, met = settled(server, "slow", "missed"), settled(server, "strict", "met")
    np.testing.assert_array_equal(ask(server, model, X, protocol, parameters={"slo_ms": SLO_MS}), X)
    assert settled(server, "slow", "missed") == missed + 1
    assert settled(server, "strict", "met") == met + 1  # long after the client's patience
    with pytest.raises(InferenceServerException) as caught:
        deadline_ns = time.time_ns() + round(SLO_MS * 1e6)
        ask(server, model, X, protocol, request_id="seven", parameters={"deadline_ns": deadline_ns})
    # From model to model Triton 2.51 keeps the sentence, not the code.
    assert (
        str(caught.value.status()).removeprefix("StatusCode.") == (STATUS if model == "chain" else INTERNAL)[protocol]
    )
    said = "[request id: seven] model 'strict': the request cannot meet its deadline: "
    assert said in str(caught.value.message())
    np.testing.assert_array_equal(
        ask(server, model, X, protocol, parameters={"deadline_ns": time.time_ns() + 60_000_000_000}), X
    )


def test_tritons_timeout_starts_anew_at_each_step(server: EmbeddedServer) -> None:
    np.testing.assert_array_equal(ask(server, "chain", X, timeout=round(SLO_MS * 1e3)), X)


def settled(server: EmbeddedServer, model: str, outcome: str) -> float:
    """How many requests of a model had this outcome, once all that Triton has handed over are counted."""

    def every() -> bool:
        handed_over = metric(server, "nv_inference_request_success", model=model)
        return metric(server, "isochrone_requests_total", model=model) == handed_over

    eventually(every)
    return metric(server, "isochrone_requests_total", model=model, outcome=outcome)
