"""Tensors of every type and shape, through models that a user might write: what goes in comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from onnx import helper
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, load, metric, remember_profile, request
from tests.server.harness import graph, mlp, mlp_answer, write_model

Arrays = dict[str, npt.NDArray[Any]]

BACKEND = 'backend: "isochrone"\n'
TYPES: dict[str, Any] = {
    "bool": np.bool_,
    **{f"{kind}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "text": np.object_,
}


def every_type() -> onnx.ModelProto:
    """Each input [batch, n] comes back as the output `<input>_out`; n is another one for each."""
    return graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in TYPES],
        {name: (dtype, ["batch", f"n_{name}"]) for name, dtype in TYPES.items()},
        {f"{name}_out": (dtype, ["batch", f"n_{name}"]) for name, dtype in TYPES.items()},
    )


def sum_and_product(dims: tuple[int | str, ...], default: npt.ArrayLike | None = None) -> onnx.ModelProto:
    """`a` and `b` → `sum` and `product`. default: of `b`, which may then be left out."""
    return graph(
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])],
        {"a": (np.float32, dims), "b": (np.float32, dims)},
        {"sum": (np.float32, dims), "product": (np.float32, dims)},
        None if default is None else {"b": np.asarray(default, np.float32)},
    )


OPTIONAL = """
max_batch_size: 4
input [{ name: "a" data_type: TYPE_FP32 dims: [2] }, { name: "b" data_type: TYPE_FP32 dims: [2] optional: true }]
"""
WARM = """
max_batch_size: 4
instance_group [{ count: 2 kind: KIND_CPU }]
model_warmup [{
  name: "one" batch_size: 1
  inputs { key: "a" value { data_type: TYPE_FP32 dims: [3] zero_data: true } }
  inputs { key: "b" value { data_type: TYPE_FP32 dims: [3] random_data: true } }
}]
output [{ name: "product" data_type: TYPE_FP32 dims: [3] }]
"""
RESHAPED = """
max_batch_size: 4
input [
  { name: "a" data_type: TYPE_FP32 dims: [-1, 1, 3] reshape { shape: [-1, 3] } },
  { name: "b" data_type: TYPE_FP32 dims: [-1, 3] }
]
output [{ name: "sum" data_type: TYPE_FP32 dims: [-1, 1, 3] reshape { shape: [-1, 3] } }]
"""
SHARED = 'parameters { key: "engine_process" value { string_value: "shared" } }\n'
SCALARS = sum_and_product(("batch",))
MODELS: Mapping[str, tuple[onnx.ModelProto, str]] = {
    "every_type": (every_type(), "max_batch_size: 4\n"),
    "every_type_shared": (every_type(), f"max_batch_size: 4\n{SHARED}"),
    "optional": (sum_and_product(("batch", 2), default=[[10, 20]]), OPTIONAL),
    "fixed": (sum_and_product((2, 3)), ""),
    "reshaped": (sum_and_product(("batch", "n", 3)), RESHAPED),
    "scalars": (SCALARS, "max_batch_size: 4\n"),
    "warm": (sum_and_product(("batch", 3)), WARM),
    "versions": (mlp(width=4, seed=1), "max_batch_size: 4\nversion_policy { all {} }\n"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("models")
    for name, (model, config) in MODELS.items():
        write_model(repository, name, model, BACKEND + config)
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for name in MODELS:
            if not name.startswith("every_type"):
                remember_profile(server, repository / name, solo_ms=0.1, max_batch_size=4)
        write_model(repository, "versions", mlp(width=4, seed=2), BACKEND + MODELS["versions"][1], version=2)
        assert load(server, MODELS) == {}
        yield server


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: EmbeddedServer) -> Iterator[Client]:
    with closing(Client(server, request.param)) as client:
        yield client


@pytest.fixture(params=["every_type", "every_type_shared"])
def model(request: pytest.FixtureRequest) -> str:
    """With its engine in its own process, and in the device's engine process."""
    name: str = request.param
    return name


class Client:
    """One protocol's client."""

    def __init__(self, server: EmbeddedServer, protocol: str) -> None:
        self.protocol = protocol
        self._module: Any = triton_http if protocol == "http" else triton_grpc
        url = server.http_url if protocol == "http" else server.grpc_url
        self._client = self._module.InferenceServerClient(url)

    def infer(self, model: str, inputs: Arrays, outputs: list[str] | None = None, **options: Any) -> Any:
        wanted = None if outputs is None else [self._module.InferRequestedOutput(name) for name in outputs]
        return self._client.infer(model, request(self._module, inputs), outputs=wanted, **options)

    def ask(self, model: str, inputs: Arrays, outputs: list[str] | None = None, **options: Any) -> Arrays:
        """The answer's arrays by name."""
        result = self.infer(model, inputs, outputs, **options)
        response = result.get_response()
        given = response["outputs"] if isinstance(response, dict) else response.outputs
        names = [output["name"] if isinstance(output, dict) else output.name for output in given]
        return {name: result.as_numpy(name) for name in names}

    def close(self) -> None:
        self._client.close()


def of_every_type(rows: int, seed: int, shortest: int = 1) -> Arrays:
    """A valid request to `every_type`, each input of another length."""
    random = np.random.default_rng(seed)
    arrays: Arrays = {}
    for number, (name, dtype) in enumerate(TYPES.items()):
        shape = (rows, shortest + (number + seed) % 5)
        if name == "text":
            words = np.array([b"", "ä€😀".encode(), b"nul\0inside", b"plain", b"x" * 1000], np.object_)
            arrays[name] = random.choice(words, shape)
        elif name.startswith("float"):
            arrays[name] = random.standard_normal(shape).astype(dtype)
        elif name == "bool":
            arrays[name] = random.random(shape) < 0.5
        else:
            limits = np.iinfo(np.dtype(dtype))
            arrays[name] = random.integers(limits.min, limits.max, shape, dtype=np.dtype(dtype), endpoint=True)
    return arrays


def assert_same(answer: Arrays, given: Arrays) -> None:
    """Outputs of `every_type`, with types and shapes."""
    assert set(answer) == {f"{name}_out" for name in given}
    for name, array in given.items():
        np.testing.assert_array_equal(answer[f"{name}_out"], array, strict=True)


def test_every_type_comes_back(client: Client, model: str) -> None:
    for seed in range(4):
        given = of_every_type(rows=seed + 1, seed=seed)
        assert_same(client.ask(model, given), given)


def test_extreme_values_come_back(client: Client, model: str) -> None:
    given = of_every_type(rows=2, seed=0)
    for name, dtype in TYPES.items():
        if name.startswith("float"):
            limits = np.finfo(np.dtype(dtype))
            row = [np.nan, np.inf, -np.inf, limits.max, limits.smallest_subnormal]
        elif "int" in name:
            row = [np.iinfo(np.dtype(dtype)).min, np.iinfo(np.dtype(dtype)).max]
        else:
            continue
        given[name] = np.array([row, row], np.dtype(dtype))
    assert_same(client.ask(model, given), given)


def test_empty_tensors(client: Client, model: str) -> None:
    given = {name: np.zeros((2, 0), dtype) for name, dtype in TYPES.items()}
    answer = client.ask(model, given)
    if client.protocol == "http":  # its client makes every empty tensor one of float64
        answer = {name: array.astype(given[name.removesuffix("_out")].dtype) for name, array in answer.items()}
    assert_same(answer, given)


def test_no_rows(client: Client) -> None:
    given = {name: np.zeros((0, 3), dtype) for name, dtype in TYPES.items()}
    with pytest.raises(InferenceServerException):
        client.ask("every_type", given)


def test_5_mb_of_numbers_and_of_text(client: Client, model: str) -> None:
    given = of_every_type(rows=2, seed=5)
    given["float32"] = np.random.default_rng(0).standard_normal((2, 655_360), dtype=np.float32)
    given["text"] = np.array([[b"a" * 2_500_000], ["ö".encode() * 1_250_000]], np.object_)
    assert_same(client.ask(model, given), given)


def test_a_subset_of_the_outputs(client: Client, model: str) -> None:
    given = of_every_type(rows=1, seed=6)
    answer = client.ask(model, given, ["text_out", "int8_out"])
    assert_same(answer, {name: given[name] for name in ("text", "int8")})


def test_shapes_of_many_clients_at_once(server: EmbeddedServer, model: str) -> None:
    def one_client(number: int) -> None:
        with closing(Client(server, ("http", "grpc")[number % 2])) as client:
            for turn in range(6):
                given = of_every_type(rows=1 + (number + turn) % 4, seed=number + turn)
                wanted = [f"{name}_out" for name in TYPES][number % 3 :]
                answer = client.ask(model, given, wanted)
                assert_same(answer, {name: given[name] for name in list(TYPES)[number % 3 :]})

    before = metric(server, "isochrone_requests_total", model=model, outcome="failed")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one_client, range(16)))
    assert metric(server, "isochrone_requests_total", model=model, outcome="failed") == before


def test_a_request_id_comes_back(client: Client) -> None:
    response = client.infer("every_type", of_every_type(rows=1, seed=0), request_id="the 1st").get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "the 1st"


def test_an_optional_input(client: Client) -> None:
    a = np.array([[1, 2]], np.float32)
    for _ in range(2):
        answer = client.ask("optional", {"a": a})
        np.testing.assert_array_equal(answer["sum"], np.array([[11, 22]], np.float32), strict=True)
        answer = client.ask("optional", {"a": a, "b": np.array([[3, 4]], np.float32)})
        np.testing.assert_array_equal(answer["product"], np.array([[3, 8]], np.float32), strict=True)


def test_an_optional_input_of_some_clients_at_once(server: EmbeddedServer) -> None:
    def one_client(number: int) -> None:
        a = np.full((1 + number % 2, 2), number, np.float32)
        given = {"a": a} if number % 3 else {"a": a, "b": a}
        with closing(Client(server, "grpc")) as client:
            for _ in range(20):
                expected = a + given.get("b", np.array([10, 20], np.float32))
                np.testing.assert_array_equal(client.ask("optional", given)["sum"], expected, strict=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one_client, range(8)))


def test_a_model_that_does_not_batch(client: Client) -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    answer = client.ask("fixed", {"a": a, "b": a + 1})
    np.testing.assert_array_equal(answer["sum"], a + a + 1, strict=True)
    np.testing.assert_array_equal(answer["product"], a * (a + 1), strict=True)
    with pytest.raises(InferenceServerException, match=r"unexpected shape for input 'a' .* Expected \[2,3\]"):
        client.ask("fixed", {"a": a[:1], "b": a})


def test_a_scalar_per_request(client: Client) -> None:
    a = np.array([[1], [2], [3]], np.float32)  # Triton knows no request without a dimension
    answer = client.ask("scalars", {"a": a, "b": a + 1})
    np.testing.assert_array_equal(answer["sum"], (a + a + 1)[:, 0], strict=True)  # as the model gives it


def test_reshaped_inputs_and_outputs(client: Client) -> None:
    a = np.arange(24, dtype=np.float32).reshape(2, 4, 1, 3)
    answer = client.ask("reshaped", {"a": a, "b": a[:, :, 0]})
    np.testing.assert_array_equal(answer["sum"], a + a, strict=True)


def test_versions_side_by_side(client: Client, server: EmbeddedServer) -> None:
    x = np.array([[1, 2, 3, 4]], np.float32)
    for version in (1, 2):
        expected = mlp_answer(mlp(width=4, seed=version), x)
        answer = client.ask("versions", {"x": x}, model_version=str(version))
        np.testing.assert_allclose(answer["y"], expected, rtol=1e-5)
        assert metric(server, "isochrone_requests_total", model="versions", version=str(version)) >= 0
    np.testing.assert_allclose(client.ask("versions", {"x": x})["y"], expected, rtol=1e-5)  # the newest
    assert len([stub for stub in server.stubs() if stub.model == "versions"]) == 2


def test_two_instances_that_were_warmed_up(client: Client, server: EmbeddedServer) -> None:
    a = np.arange(3, dtype=np.float32)[None]
    for _ in range(4):
        answer = client.ask("warm", {"a": a, "b": a})
        np.testing.assert_array_equal(answer["product"], a * a, strict=True)
    assert len([stub for stub in server.stubs() if stub.model == "warm"]) == 2


def test_only_the_outputs_that_the_configuration_names(client: Client) -> None:
    a = np.arange(3, dtype=np.float32)[None]
    assert set(client.ask("warm", {"a": a, "b": a})) == {"product"}
    with pytest.raises(InferenceServerException, match="unexpected inference output 'sum' for model 'warm'"):
        client.ask("warm", {"a": a, "b": a}, ["sum"])
