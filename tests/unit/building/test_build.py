"""`isochrone build` up to TensorRT's builder, and what it leaves behind. The builder itself needs a GPU: tests/gpu."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from backend.building.shapes import make_profiles, read_bounds
from backend.commands.build import BuildOptions, run_build
from backend.engines.gpu import cuda_device
from backend.engines.tensorrt import plan as tensorrt_plan
from backend.engines.tensorrt.importing import import_tensorrt
from backend.engines.tensorrt.plan_facts import read_facts
from backend.engines.tensorrt.plan_runtime import OptimizationProfile
from backend.errors import ConfigError
from backend.runtime_dir import VARIABLE
from backend.tensors import BY_CONFIG, TensorSpec
from tests.fakes.fake_gpu import tensor
from tests.fakes.graphs import write_mlp

FP32 = BY_CONFIG["TYPE_FP32"]
IMAGE = TensorSpec("image", FP32, (-1, 3, 8, 8))
TEXT = TensorSpec("ids", FP32, (-1, -1))


def test_a_profile_per_batch_size() -> None:
    profiles = make_profiles([IMAGE], [4, 1, 2, 4], {})
    ranges = [(p.smallest["image"][0], p.optimum["image"][0], p.largest["image"][0]) for p in profiles]
    assert ranges == [(1, 1, 1), (2, 2, 2), (3, 4, 4)]
    assert all(p.largest["image"][1:] == (3, 8, 8) for p in profiles)


def test_open_dimensions_take_the_bounds_given() -> None:
    [profile] = make_profiles([TEXT, IMAGE], [8], read_bounds(["ids=16:128:512"]))
    assert profile == OptimizationProfile(
        smallest={"ids": (1, 16), "image": (1, 3, 8, 8)},
        optimum={"ids": (8, 128), "image": (8, 3, 8, 8)},
        largest={"ids": (8, 512), "image": (8, 3, 8, 8)},
    )


def test_a_model_without_an_open_batch_has_one_profile() -> None:
    fixed = TensorSpec("x", FP32, (2, 3))
    assert make_profiles([fixed], [1, 2, 4], {}) == (OptimizationProfile({"x": (2, 3)}, {"x": (2, 3)}, {"x": (2, 3)}),)


def test_bounds() -> None:
    assert read_bounds(["a=1:2:3", "b=3x32x32:3x64x64:3x96x96"]) == {
        "a": ((1,), (2,), (3,)),
        "b": ((3, 32, 32), (3, 64, 64), (3, 96, 96)),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ids", "--shape 'ids' must be NAME=MIN:OPT:MAX with sizes such as 3x224x224, without the batch"),
        ("ids=1:2", "--shape 'ids=1:2' must be NAME=MIN:OPT:MAX"),
        ("ids=1:2x2:4", "--shape 'ids=1:2x2:4' must have as many dimensions in MIN, OPT and MAX"),
        ("ids=4:2:8", "--shape 'ids=4:2:8' must have MIN <= OPT <= MAX in each dimension"),
        ("ids=0:2:8", "--shape 'ids=0:2:8' must have whole numbers from 1 as sizes, with an x between"),
        ("ids=x:2:8", "--shape 'ids=x:2:8' must have whole numbers from 1"),
    ],
)
def test_bounds_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_bounds([text])
    assert str(refused.value).startswith(says)


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ([], "input 'ids' has open dimensions [-1] beside the batch; give their bounds with --shape ids=MIN:OPT:MAX"),
        (["ids=1x1:2x2:3x3"], "--shape gives [1, 1] for input 'ids', which the model has as [-1]"),
        (["tokens=1:2:3"], "--shape names input 'tokens', but the model has 'ids'"),
    ],
)
def test_bounds_that_do_not_fit_the_model(bounds: Sequence[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_profiles([TEXT], [1], read_bounds(bounds))
    assert str(refused.value) == says


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/mine/1/model.onnx under a config.pbtxt for batches up to 6."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "runtime"))
    version = tmp_path / "models" / "mine" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text('backend: "isochrone"\nmax_batch_size: 6\n')
    return write_mlp(version).rename(version / "model.onnx")


def test_only_the_whole_tensorrt_builds(model: Path) -> None:
    """Here there is the lean one; a machine with the whole TensorRT has tests/gpu."""
    if "lean" not in import_tensorrt().__name__:
        pytest.skip("the whole TensorRT is installed here")
    with pytest.raises(ConfigError) as refused:
        run_build(BuildOptions(model))
    assert str(refused.value) == (
        "`isochrone build` needs the whole of TensorRT, but tensorrt_lean_bindings can only run plans"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "int8"}, "--precision 'int8' must be model or fp16"),
        ({"batch_sizes": "0"}, "--batch-sizes '0' must be whole numbers from 1"),
        ({"out": Path("/nowhere/model.plan")}, "--out /nowhere/model.plan is in no folder that exists"),
        ({"model": Path("/nowhere/model.onnx"), "out": Path("/tmp/p")}, "there is no model file '/nowhere/model.onnx'"),
        ({"shapes": ("z=1:1:1",)}, "--shape names input 'z', but the model has 'x'"),
    ],
)
def test_what_is_wrong_is_told_before_tensorrt_is_looked_for(options: dict[str, Any], says: str, model: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        run_build(BuildOptions(**{"model": model, **options}))
    assert str(refused.value).startswith(says)


class Builder(ModuleType):
    """Stands for backend.building.tensorrt_builder: keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__("tensorrt_builder")
        self.asked: dict[str, Any] = {}

    def build(self, onnx: Path, profiles: Any, **options: Any) -> Any:
        self.asked = {"onnx": onnx, "profiles": profiles, **options}
        return SimpleNamespace(plan=b"the plan", timings=b"the timings", reused=bool(options["timings"]))


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    """A GPU and a builder that both do as asked."""
    builder = Builder()
    gpu = SimpleNamespace(name=lambda: "NVIDIA H200", compute_capability=lambda: "9.0")
    tensors = [tensor("x", (-1, 16), is_input=True), tensor("y", (-1, 10), is_input=False)]
    monkeypatch.setitem(sys.modules, "backend.building.tensorrt_builder", builder)
    monkeypatch.setattr("backend.building.tensorrt_builder", builder, raising=False)
    monkeypatch.setattr(cuda_device, "CudaDevice", lambda _: gpu)
    monkeypatch.setattr(tensorrt_plan, "TensorRtPlan", lambda _: SimpleNamespace(tensors=tensors, close=lambda: None))
    return builder


def test_a_plan_its_facts_and_a_timing_cache(model: Path, builder: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    plan = model.with_name("model.plan")
    run_build(BuildOptions(model, workspace_mib=3))
    assert plan.read_bytes() == b"the plan"
    assert [p.largest["x"] for p in builder.asked["profiles"]] == [(1, 16), (2, 16), (4, 16), (6, 16)]
    assert (builder.asked["fp16"], builder.asked["workspace_bytes"], builder.asked["timings"]) == (False, 3 << 20, b"")
    facts = read_facts(plan)
    assert facts is not None
    assert (facts.gpu, facts.tensorrt, facts.precision) == ("NVIDIA H200", tensorrt_plan.VERSION, "model")
    assert facts.profiles == builder.asked["profiles"]
    assert [t.name for t in facts.tensors] == ["x", "y"]
    said = capsys.readouterr().out
    assert "profiles: 4" in said
    assert "batches 5 to 6: tuned to x 6x16" in said
    assert "model.onnx is served while it lies beside" in said
    assert sorted(path.name for path in model.parent.iterdir()) == ["model.onnx", "model.plan", "model.plan.json"]


def test_the_next_build_reuses_the_timings(model: Path, builder: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    run_build(BuildOptions(model))
    run_build(BuildOptions(model, precision="fp16", batch_sizes="3", out=model.with_name("other.plan")))
    assert builder.asked["timings"] == b"the timings"
    assert builder.asked["fp16"]
    assert [p.largest["x"] for p in builder.asked["profiles"]] == [(3, 16)]
    said = capsys.readouterr().out
    assert said.count("begun") == said.count("reused") == 1
