"""Whatever is wrong with a model or a request is told in one sentence, and the server serves on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from onnx import helper
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from backend.server.ports import free_ports
from tests.server.control import EXPLICIT, load, metric, remember_profile, request
from tests.server.harness import graph, identity, mlp, mlp_answer, write_model

BACKEND = 'backend: "isochrone"\nmax_batch_size: 8\n'
GOOD = mlp(width=4)
LANES = len(os.sched_getaffinity(0))  # what models that leave it open get
X = np.array([[1, 2, 3, 4]], np.float32)


def parameter(key: str, value: str) -> str:
    return BACKEND + f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def tensors(x: str = "x", x_type: str = "FP32", x_dims: str = "4", y: str = "y", y_dims: str = "4") -> str:
    return (
        f'{BACKEND}input [{{ name: "{x}" data_type: TYPE_{x_type} dims: [{x_dims}] }}]\n'
        f'output [{{ name: "{y}" data_type: TYPE_FP32 dims: [{y_dims}] }}]\n'
    )


class Bad(NamedTuple):
    """says: what the sentence must hold; model: None leaves the file out."""

    config: str
    says: str
    model: onnx.ModelProto | bytes | None = GOOD


PARSE = "ONNX Runtime cannot load '{file}': [ONNXRuntimeError] : 7 : INVALID_PROTOBUF"
UNLOADABLE = {
    "unknown_key": Bad(
        parameter("interference_awaer", "false"),
        "unknown parameter 'interference_awaer'; the parameters are interference_aware, slo_ms, ",
    ),
    "slo_fast": Bad(
        parameter("slo_ms", "fast"),
        "parameter 'slo_ms' is \"fast\"; it must be a number of milliseconds above 0, at most 1e9",
    ),
    "slo_nan": Bad(
        parameter("slo_ms", "nan"),
        "parameter 'slo_ms' is \"nan\"; it must be a number of milliseconds above 0, at most 1e9",
    ),
    "engine": Bad(
        parameter("engine", "openvino"),
        'parameter \'engine\' is "openvino"; it must be "auto", "onnxruntime", "tensorrt" or "emulated"',
    ),
    "missing": Bad(BACKEND, "there is no model file '{file}'", None),
    "empty": Bad(BACKEND, "the model file '{file}' is empty", b""),
    "truncated": Bad(BACKEND, PARSE, GOOD.SerializeToString()[:-40]),
    "not_a_model": Bad(BACKEND, PARSE, b"version https://git-lfs.github.com/spec/v1\n"),
    "input_name": Bad(tensors(x="z"), "config.pbtxt names input 'z', but the model has 'x'"),
    "input_type": Bad(tensors(x_type="INT32"), "input 'x' is TYPE_INT32 in config.pbtxt, but TYPE_FP32 in the model"),
    "input_dims": Bad(
        tensors(x_dims="5"),
        "input 'x' has dims [5] in config.pbtxt, but [4] in the model (without the batch dimension)",
    ),
    "input_rank": Bad(
        tensors(x_dims="4, 1"),
        "input 'x' has dims [4, 1] in config.pbtxt, but [4] in the model (without the batch dimension)",
    ),
    "output_name": Bad(tensors(y="z"), "config.pbtxt names output 'z', but the model has 'y'"),
    "output_dims": Bad(tensors(y_dims="5"), "output 'y' has dims [5] in config.pbtxt, but [4] in the model"),
    "batch_of_two": Bad(
        BACKEND,
        "max_batch_size is above 0, but input 'x' of the model has shape [2, 4] without a dynamic first dimension; "
        "use max_batch_size: 0",
        graph([helper.make_node("Identity", ["x"], ["y"])], {"x": (np.float32, [2, 4])}, {"y": (np.float32, [2, 4])}),
    ),
    "not_optional": Bad(
        BACKEND + 'input [{ name: "x" data_type: TYPE_FP32 dims: [4] optional: true }]\n',
        "input 'x' is optional in config.pbtxt, but the model has no default for it",
    ),
    "priority_levels": Bad(
        BACKEND + "dynamic_batching { priority_levels: 2 default_priority_level: 1 }\n",
        "priority_levels in dynamic_batching leaves requests stuck in Triton's queue; "
        "use the parameter 'priority' and the request parameter 'priority_class' instead",
    ),
    "queue_policy": Bad(
        BACKEND + "dynamic_batching { default_queue_policy { max_queue_size: 5 } }\n",
        "a queue policy in dynamic_batching leaves requests stuck in Triton's queue; "
        "use the parameters 'slo_ms', 'on_miss' and 'max_queue_size' instead",
    ),
    "other_lanes": Bad(
        parameter("device_lanes", str(LANES + 1)),
        f"device_lanes is {LANES + 1} for model 'other_lanes', but this device's scheduler runs {LANES}; "
        "give every model on the device the same value",
    ),
}
PLANS = {
    "plan": Bad(BACKEND, "a plan needs a GPU with NVIDIA's driver, but there is none that suffices (", b"a plan"),
    "plan_empty": Bad(BACKEND, "the model file '{file}' is empty", b""),
    "plan_by_onnxruntime": Bad(parameter("engine", "onnxruntime"), "there is no model file '", b"a plan"),
    "onnx_by_tensorrt": Bad(
        parameter("engine", "tensorrt"),
        "parameter 'engine' is \"tensorrt\", but the model file is '{file}'; make a plan with `isochrone build`",
    ),
    "mps_percent": Bad(
        parameter("mps_percent", "30"), "parameter 'mps_percent' is \"30\", but this instance is not on a GPU"
    ),
}
"""What needs a GPU, on a machine without."""
ON_A_GPU = BACKEND + "instance_group [{ kind: KIND_GPU }]\n"  # here Triton itself speaks, before us
TABLE = graph(
    [helper.make_node("Gather", ["table", "x"], ["y"])],
    {"x": (np.int64, ["batch", 1])},
    {"y": (np.float32, ["batch", 1])},
    {"table": np.arange(10, dtype=np.float32)},
)


def model_name(bad: Bad) -> str:
    return "model.onnx" if bad.model is GOOD else "model.plan"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("models")
    for name, bad in UNLOADABLE.items():
        folder = write_model(repository, name, bad.model or b"", bad.config)
        if bad.model is None:
            (folder / "1" / "model.onnx").unlink()
    for name, bad in PLANS.items():
        write_model(repository, name, bad.model or b"", bad.config, filename=model_name(bad))
    write_model(repository, "gpu", GOOD, ON_A_GPU)
    write_model(repository, "good", GOOD, parameter("device_lanes", str(LANES)))
    write_model(repository, "table", TABLE, BACKEND)
    write_model(repository, "text", identity(object), BACKEND)
    return repository


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for name in ("good", "table", "text"):
            remember_profile(server, repository / name, solo_ms=0.1, max_batch_size=8)
        remember_profile(server, repository / "other_lanes", solo_ms=0.1, max_batch_size=8)
        assert load(server, ["good", "table", "text"]) == {}
        yield server


@pytest.fixture(scope="module")
def sentences(server: EmbeddedServer) -> dict[str, str]:
    """Model → why it could not be loaded. Side by side, because each needs a process of its own."""
    return load(server, [*UNLOADABLE, *PLANS, "gpu"])


@pytest.fixture(autouse=True)
def serves_on(server: EmbeddedServer) -> Iterator[None]:
    """After each test the same server answers, over both protocols."""
    pid = server.pid
    yield
    assert server.pid == pid
    for protocol in ("http", "grpc"):
        with closing(Client(server, protocol)) as client:
            np.testing.assert_allclose(client.ask("good", X), mlp_answer(GOOD, X), rtol=1e-5)
    assert metric(server, "isochrone_fail_open_total") == 0


class Client:
    """One protocol's client."""

    def __init__(self, server: EmbeddedServer, protocol: str) -> None:
        self.protocol = protocol
        self._module: Any = triton_http if protocol == "http" else triton_grpc
        url = server.http_url if protocol == "http" else server.grpc_url
        self._client = self._module.InferenceServerClient(url)

    def ask(self, model: str, array: npt.NDArray[Any], name: str = "x", **options: Any) -> npt.NDArray[Any]:
        answer: npt.NDArray[Any] = self._client.infer(model, request(self._module, {name: array}), **options).as_numpy(
            "y"
        )
        return answer

    def refused(self, model: str, array: npt.NDArray[Any], name: str = "x", **options: Any) -> tuple[str, str]:
        """Status and sentence of a request that must fail."""
        with pytest.raises(InferenceServerException) as caught:
            self.ask(model, array, name, **options)
        return str(caught.value.status()).removeprefix("StatusCode."), str(caught.value.message())

    def close(self) -> None:
        self._client.close()


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: EmbeddedServer) -> Iterator[Client]:
    with closing(Client(server, request.param)) as client:
        yield client


INVALID = {"http": "400", "grpc": "INVALID_ARGUMENT"}
INTERNAL = {"http": "500", "grpc": "INTERNAL"}


@pytest.mark.parametrize("name", UNLOADABLE)
def test_a_model_that_cannot_be_loaded(name: str, sentences: dict[str, str], repository: Path) -> None:
    says = UNLOADABLE[name].says.format(file=repository / name / "1" / "model.onnx")
    assert f"isochrone cannot load model '{name}': {says}" in sentences[name]


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_where_there_is_no_gpu(name: str, sentences: dict[str, str], repository: Path) -> None:
    says = PLANS[name].says.format(file=repository / name / "1" / model_name(PLANS[name]))
    assert f"isochrone cannot load model '{name}': {says}" in sentences[name]


def test_a_gpu_instance_where_there_is_no_gpu(sentences: dict[str, str]) -> None:
    assert "instance group gpu_0 of model gpu has kind KIND_GPU but no GPUs are available" in sentences["gpu"]


@pytest.mark.parametrize("value", [-5, 0, float("nan"), float("inf"), "fast", "-20", True])
def test_a_bad_slo_ms(value: object, client: Client) -> None:
    status, sentence = client.refused("good", X, parameters={"slo_ms": value})
    assert status == INVALID[client.protocol]
    assert sentence == f"model 'good': slo_ms is {value!r}; it must be a number of milliseconds above 0, at most 1e9"


@pytest.mark.parametrize("value", [-1, 0, 1.5, "soon"])
def test_a_bad_deadline_ns(value: object, client: Client) -> None:
    status, sentence = client.refused("good", X, parameters={"deadline_ns": value})
    assert status == INVALID[client.protocol]
    assert sentence == f"model 'good': deadline_ns is {value!r}; it must be a Unix time in whole nanoseconds"


@pytest.mark.parametrize("value", [-1, 0, 1.0, "high", True])
def test_a_bad_priority_class(value: object, client: Client) -> None:
    status, sentence = client.refused("good", X, parameters={"priority_class": value})
    assert status == INVALID[client.protocol]
    assert sentence == (
        f"model 'good': priority_class is {value!r}; it must be a whole number from 1, the highest class"
    )


def test_two_deadlines(client: Client) -> None:
    status, sentence = client.refused("good", X, parameters={"slo_ms": 5, "deadline_ns": 5})
    assert status == INVALID[client.protocol]
    assert sentence == "model 'good': slo_ms and deadline_ns are both given; give one of them"


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.ones((1, 4), np.int32), "inference input 'x' data-type is 'INT32', but model 'good' expects 'FP32'"),
        (np.ones((1, 5), np.float32), "unexpected shape for input 'x' for model 'good'. Expected [-1,4], got [1,5]."),
        (np.ones((4,), np.float32), "unexpected shape for input 'x' for model 'good'. Expected [-1,4], got [4]."),
        (np.ones((9, 4), np.float32), "inference request batch-size must be <= 8 for 'good'"),
        (np.ones((0, 4), np.float32), "input byte size mismatch for input 'x' for model 'good'. Expected 16, got 0"),
    ],
    ids=["type", "shape", "rank", "batch", "no_rows"],
)
def test_an_input_that_does_not_fit(array: npt.NDArray[Any], says: str, client: Client) -> None:
    status, sentence = client.refused("good", array)
    assert status == INVALID[client.protocol]
    assert says in sentence


def test_an_unknown_and_a_missing_input(client: Client) -> None:
    status, sentence = client.refused("good", X, name="z")
    assert (status, sentence) == (INVALID[client.protocol], "unexpected inference input 'z' for model 'good'")


def test_bytes_that_are_not_text(client: Client) -> None:
    array = np.array([["a", b"\xff\xfe", "b", "c"]], object)
    status, sentence = client.refused("text", array)
    assert status == INVALID[client.protocol]
    assert sentence == "model 'text': input 'x' holds bytes that are not UTF-8 text: invalid start byte"


def test_a_run_that_raises(client: Client, server: EmbeddedServer) -> None:
    status, sentence = client.refused("table", np.array([[300]], np.int64))
    assert status == INTERNAL[client.protocol]
    assert re.match(r"model 'table': the model's run failed: Error in execution: .*idx=300 must be within", sentence)
    assert client.ask("table", np.array([[3]], np.int64)) == 3
    assert metric(server, "isochrone_fail_open_total", model="table") == 0


def test_one_model_name_in_two_servers(tmp_path: Path, server: EmbeddedServer) -> None:
    """They share a device, so they share its scheduler."""
    other = mlp(width=4, seed=1)
    write_model(tmp_path, "good", other, parameter("device_lanes", str(LANES)))
    environment = {"ISOCHRONE_RUNTIME_DIR": str(server.runtime_dir)}
    remember_profile(server, tmp_path / "good", solo_ms=0.1, max_batch_size=8)
    with (
        EmbeddedServer(tmp_path, env=environment) as second,
        closing(Client(second, "http")) as theirs,
        closing(Client(server, "http")) as ours,
    ):
        for _ in range(10):
            np.testing.assert_allclose(theirs.ask("good", X), mlp_answer(other, X), rtol=1e-5)
            np.testing.assert_allclose(ours.ask("good", X), mlp_answer(GOOD, X), rtol=1e-5)
        assert metric(second, "isochrone_fail_open_total") == 0


@pytest.mark.parametrize("folder", ["/proc/isochrone", "/proc/self"])  # root may write anywhere but there
def test_a_runtime_folder_that_cannot_be_written(folder: str, tmp_path: Path) -> None:
    write_model(tmp_path, "good", GOOD, BACKEND)
    ports = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), free_ports(3), strict=True)]
    done = subprocess.run(
        [sys.executable, "-m", "backend.commands.main", "serve", "--model-repository", str(tmp_path), *ports],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"ISOCHRONE_RUNTIME_DIR": folder},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert f"isochrone cannot load model 'good': the scheduler's socket cannot go to '{folder}'" in done.stderr
