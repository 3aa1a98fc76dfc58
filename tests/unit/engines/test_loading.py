"""Which engine opens which file, and that nobody needs TensorRT or CUDA who has no plan."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime
import pytest
from onnx import helper

from backend.config.model_config import EngineConfig, complete, model_file, read_engine_config, read_model_config
from backend.engines.gpu import cuda_device
from backend.engines.loading import read_model_specs
from backend.engines.protocol import ModelSpecs
from backend.engines.tensorrt.importing import NAMES
from backend.engines.tensorrt.plan_facts import facts_path
from backend.errors import ConfigError
from backend.model_process.placement import open_engine
from tests.fakes.driver import made_up_driver
from tests.fakes.graphs import Shape, ones, write_mlp, write_model
from tests.unit.engines.tensorrt.test_plan_layout import FACTS


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")
    return plan


def config(file: Path, device_id: int | None = None, **parameters: str) -> EngineConfig:
    stated: Mapping[str, Any] = {
        "name": "m",
        "max_batch_size": 0,
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }
    return read_engine_config(stated, "1", file, device_id)


def test_an_engine_that_does_not_run_the_file(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        open_engine(config(plan, engine="onnxruntime"))
    assert str(refused.value) == (
        f'parameter \'engine\' is "onnxruntime", but the model file is \'{plan}\'; use "auto" or "tensorrt"'
    )
    onnx = write_mlp(tmp_path)
    with pytest.raises(ConfigError) as refused:
        open_engine(config(onnx, engine="tensorrt"))
    assert str(refused.value) == (
        f"parameter 'engine' is \"tensorrt\", but the model file is '{onnx}'; make a plan with `isochrone build`"
    )


def test_mps_percent_on_cpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        open_engine(config(write_mlp(tmp_path), mps_percent="30"))
    assert str(refused.value) == (
        "parameter 'mps_percent' is \"30\", but this instance is not on a GPU; leave it out, or use KIND_GPU"
    )


def test_a_plan_without_tensorrt(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "backend.engines.tensorrt.plan", raising=False)
    monkeypatch.delattr("backend.engines.tensorrt.plan", raising=False)
    for name in NAMES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"^a plan needs TensorRT, which is not installed here;"):
        read_model_specs(plan, 0)


def test_a_plan_without_cuda(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("backend.engines.gpu.cuda_device", "backend.device.cuda"):
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.delattr(module, raising=False)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    says = r"^a model on a GPU needs the package cuda-bindings, which cannot be imported \(.*gpu\]'$"
    with pytest.raises(ConfigError, match=says):
        read_model_specs(plan, 0)


def test_a_gpu_that_is_not_there_is_not_left_to_onnx_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would run the model on the CPU then."""
    made_up_driver(monkeypatch)
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    made = config(write_mlp(tmp_path), device_id=1, engine_process="own")
    with pytest.raises(ConfigError, match=r"^there is no GPU 1: this process sees GPU 0$"):
        open_engine(made)


def test_a_plan_on_a_cpu_instance(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "CudaDevice", lambda _: None)
    with pytest.raises(ConfigError) as refused:
        open_engine(config(plan))
    assert str(refused.value) == (
        f"'{plan}' needs a GPU, but this instance is KIND_CPU; instance_group needs kind: KIND_GPU"
    )


@pytest.mark.parametrize(("content", "says"), [(None, "there is no model file"), (b"", "the model file")])
def test_a_plan_that_is_not_there(content: bytes | None, says: str, plan: Path) -> None:
    plan.unlink() if content is None else plan.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{says}"):
        read_model_specs(plan, None)


def test_what_a_plan_takes_is_known_without_a_gpu(plan: Path) -> None:
    facts_path(plan).write_bytes(msgspec.json.encode(FACTS))
    model = read_model_specs(plan, None)
    assert [(t.name, t.datatype.config, t.shape) for t in model.inputs] == [("x", "TYPE_FP16", (-1, 3))]
    assert model.max_batch_size == 8
    stated: dict[str, Any] = {"name": "m"}
    complete(stated, model.inputs, model.outputs, model.max_batch_size or 0)
    assert stated["max_batch_size"] == 8
    assert stated["input"] == [{"name": "x", "data_type": "TYPE_FP16", "dims": [3]}]


def test_a_plan_for_a_static_batch_does_not_batch(plan: Path) -> None:
    """Batches of 4 only, under max_batch_size 8."""
    four = msgspec.structs.replace(
        FACTS,
        tensors=tuple(msgspec.structs.replace(t, shape=(4, *t.shape[1:])) for t in FACTS.tensors),
        profiles=(msgspec.structs.replace(FACTS.profiles[0], smallest={"x": (4, 3)}, largest={"x": (4, 3)}),),
    )
    facts_path(plan).write_bytes(msgspec.json.encode(four))
    model = read_model_specs(plan, None)
    assert model.max_batch_size == 0
    stated: dict[str, Any] = {"name": "m", "max_batch_size": 8}
    complete(stated, model.inputs, model.outputs, model.max_batch_size or 0)
    with pytest.raises(ConfigError) as refused:
        read_model_config(read_engine_config(stated, "1", plan, 0), stated, model)
    assert str(refused.value) == (
        "max_batch_size is above 0, but input 'x' of the model has shape [4, 3] without a dynamic first dimension; "
        "use max_batch_size: 0"
    )


def test_an_open_engine_takes_and_gives_what_its_file_says(tmp_path: Path) -> None:
    """Though it has been optimised: an unused branch and an identity are gone, a constant is folded."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Identity", ["scaled"], ["y"]),
        helper.make_node("Shape", ["weight"], ["shape"]),
        helper.make_node("Expand", ["row", "shape"], ["z"]),
        helper.make_node("Relu", ["x"], ["unused"]),
    ]
    inputs: dict[str, Shape] = {"x": ["batch", "length", 4], "scale": [4]}
    outputs: dict[str, Shape | None] = {"y": ["batch", "length", 4], "z": ["a", "b"]}
    weights = {"scale": ones(4), "weight": ones(2, 4), "row": ones(4)}
    file = write_model(tmp_path / "model.onnx", nodes, inputs, outputs, weights)
    model = read_model_specs(file, None)
    assert [(t.name, t.optional) for t in model.inputs] == [("x", False), ("scale", True)]
    with closing(open_engine(config(file))) as engine:
        assert (engine.inputs, engine.outputs) == (model.inputs, model.outputs)


def test_an_onnx_file_has_no_largest_batch(tmp_path: Path) -> None:
    assert read_model_specs(write_mlp(tmp_path), None).max_batch_size is None
    assert ModelSpecs((), ()).max_batch_size is None


@pytest.mark.parametrize(
    ("engine", "files", "chosen"),
    [
        ("auto", ("model.onnx", "model.plan"), "model.onnx"),
        ("tensorrt", ("model.onnx", "model.plan"), "model.plan"),
        ("onnxruntime", ("model.onnx", "model.plan"), "model.onnx"),
        ("auto", ("model.plan",), "model.plan"),
        ("tensorrt", ("model.onnx",), "model.onnx"),
    ],
)
def test_the_engine_decides_between_two_files(engine: str, files: tuple[str, ...], chosen: str, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).touch()
    stated = {"parameters": {"engine": {"string_value": engine}}}
    assert model_file(tmp_path, stated) == tmp_path / chosen


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x" * 5_000, "File name too long"),
        ("y" * 5_000 + ".plan", "File name too long"),
        ("z" * 5_000 + ".emulated.json", "File name too long"),
        ("a\0.emulated.json", r"1/a\x00.emulated.json' cannot be read: embedded null byte"),
        ("model.onnx/x", "there is no model file '"),
    ],
)
def test_a_file_name_that_no_file_can_have(name: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_model_specs(model_file(Path("/nope/1"), {"default_model_filename": name}), None)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
