"""Models that synthetic inputs say little of, or that have outputs which no tensor can hold, on a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.grpc as triton_grpc
from onnx import TensorProto, helper

from backend.linux.cpu_topology import core_budget, cores
from backend.linux.loading_priority import may_restore
from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, eventually, load, request
from tests.server.harness import IR_VERSION, OPSET, graph, mlp, write_model

F, I64 = np.float32, np.int64
BARE = 'backend: "isochrone"\n'
LOAD_S_MAX = 60.0
"""Of a model that synthetic inputs never end in: the limits of a trial, on a machine that others use."""
node = helper.make_node


def endless() -> onnx.ModelProto:
    """x [batch, 4] → y, its sum: a loop that goes round until a value of x is large, so for ever on synthetic ones."""
    infos: list[tuple[str, int, list[int]]] = [
        ("i", TensorProto.INT64, []),
        ("go", TensorProto.BOOL, []),
        ("go_on", TensorProto.BOOL, []),
    ]
    i, go, go_on = (helper.make_tensor_value_info(*info) for info in infos)
    state, again = (helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in ("state", "again"))
    body = helper.make_graph(
        [node("Less", ["most", "limit"], ["go_on"]), node("Identity", ["state"], ["again"])],
        "body",
        [i, go, state],
        [go_on, again],
    )
    return graph(
        [
            node("ReduceMax", ["x"], ["most"], keepdims=0),
            node("ReduceSum", ["x"], ["sum"], keepdims=0),
            node("Loop", ["", "yes", "sum"], ["y"], body=body),
        ],
        {"x": (F, ["batch", 4])},
        {"y": (F, [])},
        {"limit": F(1e6), "yes": np.bool_(True)},
    )


def picky() -> onnx.ModelProto:
    """x [batch, n] → y: runs on 100 values that begin with 7 only, and else fails in a look-up."""
    return graph(
        [
            node("Reshape", ["x", "hundred"], ["r"]),
            node("Slice", ["r", "zero", "one", "second"], ["first"]),
            node("Cast", ["first"], ["id"], to=TensorProto.INT64),
            node("Sub", ["id", "seven"], ["place"]),
            node("Abs", ["place"], ["at"]),
            node("Gather", ["table", "at"], ["found"]),
            node("ReduceSum", ["found"], ["nothing"], keepdims=0),
            node("Add", ["r", "nothing"], ["y"]),
        ],
        {"x": (F, ["batch", "n"])},
        {"y": (F, ["batch", 100])},
        {
            "hundred": np.array([-1, 100]),
            "zero": np.array([0]),
            "one": np.array([1]),
            "second": np.array([1]),
            "seven": np.array([7]),
            "table": np.zeros(1, F),
        },
    )


def classifier() -> onnx.ModelProto:
    """x [batch, 3] → label [batch] and probabilities, a sequence of maps, as skl2onnx writes classifiers."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"])
    entry = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    maps = helper.make_value_info("probabilities", helper.make_sequence_type_proto(entry))
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            coefficients=[1.0, 0, 0, 0, 1.0, 0],
            intercepts=[0.0, 0.0],
            classlabels_ints=[0, 1],
            multi_class=1,
        ),
        helper.make_node("ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 1)]
    body = helper.make_graph(nodes, "classifier", [x], [label, maps])
    return helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION)


EMPTY = graph(
    [node("Concat", ["x", "nothing"], ["y"], axis=0)],
    {"x": (F, ["n", 2]), "nothing": (F, [0, 2])},
    {"y": (F, ["m", 2])},
)
WARM = (
    f'{BARE}parameters {{ key: "slo_ms" value {{ string_value: "200" }} }}\n'
    'model_warmup [{ name: "seven" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ %s ] '
    'input_data_file: "seven" } } }]\n'
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "endless", endless(), BARE)
    write_model(repository, "plain", mlp(width=4), BARE)
    write_model(repository, "classifier", classifier(), BARE)
    write_model(repository, "label", classifier(), BARE + 'output [{ name: "label" }]\n')
    write_model(repository, "maps", classifier(), BARE + 'output [{ name: "probabilities" }]\n')
    write_model(repository, "empty", EMPTY, BARE)
    write_model(repository, "unknown", picky(), BARE)
    warm = write_model(repository, "warm", picky(), WARM % "1, 100")
    (warm / "warmup").mkdir()
    (warm / "warmup" / "seven").write_bytes(seven().tobytes())
    return repository


def seven() -> Any:
    return np.full((1, 100), 7, F)


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: EmbeddedServer) -> Iterator[Any]:
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        yield client


def trials(model: str) -> list[int]:
    """Processes that try a model."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = file.read_bytes()
            if b"backend.trial.process" in line and f"/{model}/1/".encode() in line:
                found.append(int(file.parent.name))
    return found


def test_a_loop_without_end_ends_the_trial_not_the_load(server: EmbeddedServer, client: Any) -> None:
    begun_s = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load, server, ["endless", "plain"])
        if may_restore() and 1 < len(cores()) <= core_budget():  # lanes can be preempted, so it has that of a launch
            eventually(lambda: {1} == {len(os.sched_getaffinity(pid)) for pid in trials("endless")})
        assert loading.result() == {}
    assert time.monotonic() - begun_s < LOAD_S_MAX
    x = np.array([[1, 2, 3, 1e7]], F)
    assert client.infer("endless", request(triton_grpc, {"x": x})).as_numpy("y") == x.sum()
    assert "isochrone: model 'endless': " in server.log_text()
    begun_s = time.monotonic()
    assert load(server, ["endless"]) == {}
    assert time.monotonic() - begun_s < LOAD_S_MAX


@pytest.mark.parametrize("name", ["classifier", "label"])
def test_the_tensors_of_a_classifier_with_maps_are_served(name: str, server: EmbeddedServer, client: Any) -> None:
    assert load(server, [name]) == {}
    x = np.array([[1, 0, 0], [0, 1, 0], [0, 2, 0]], F)
    (expected,) = onnxruntime.InferenceSession(classifier().SerializeToString()).run(["label"], {"x": x})
    answer = client.infer(name, request(triton_grpc, {"x": x}))
    np.testing.assert_array_equal(answer.as_numpy("label"), expected)
    said = f"isochrone: model '{name}': output 'probabilities' is not served: it is seq(map(int64,tensor(float)))"
    assert (said in server.log_text()) == (name == "classifier")


def test_maps_that_are_asked_for_are_refused_with_the_exporters_option(server: EmbeddedServer) -> None:
    assert "options={'zipmap': False}" in load(server, ["maps"])["maps"]


def test_a_dimension_of_0_is_served(server: EmbeddedServer, client: Any) -> None:
    assert load(server, ["empty"]) == {}
    arrays = {"x": np.ones((3, 2), F), "nothing": np.zeros((0, 2), F)}
    answer = client.infer("empty", request(triton_grpc, arrays))
    np.testing.assert_array_equal(answer.as_numpy("y"), arrays["x"])


def test_what_runs_on_no_made_up_input_is_served_and_said(server: EmbeddedServer, client: Any) -> None:
    assert load(server, ["unknown"]) == {}
    answer = client.infer("unknown", request(triton_grpc, {"x": seven()})).as_numpy("y")
    np.testing.assert_array_equal(answer, seven())
    assert "isochrone: model 'unknown': it does not run on synthetic inputs (" in server.log_text()


def test_warm_up_names_inputs_that_run(server: EmbeddedServer, client: Any) -> None:
    assert load(server, ["warm"]) == {}
    np.testing.assert_array_equal(client.infer("warm", request(triton_grpc, {"x": seven()})).as_numpy("y"), seven())
    assert "isochrone: model 'warm': it does not run" not in server.log_text()


@pytest.mark.parametrize("name", ["unknown", "warm"])
def test_profile_takes_warm_up_or_given_inputs(
    name: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOCHRONE_RUNTIME_DIR", str(tmp_path / "run"))
    command = [sys.executable, "-m", "backend.commands.main", "profile", f"--model-repository={repository}"]
    command += [f"--model={name}", "--seconds=0.1", "--batch-sizes=1"]
    told = subprocess.run(command, text=True, capture_output=True, check=False)
    if name == "unknown":
        assert told.returncode == 1
        assert "give --inputs FILE.npz" in " ".join(told.stdout.split())
        np.savez(tmp_path / "inputs.npz", x=seven())
        command.append(f"--inputs={tmp_path / 'inputs.npz'}")
        told = subprocess.run(command, text=True, capture_output=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads((repository / name / "1" / "profile.json").read_bytes())
    assert [entry["batch_size"] for entry in found["entries"]] == [1]
    assert found["shapes"] == {"x": [1, 100]}
