"""Features on a GPU from the work of a graph, which a child process counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backend.config.model_config import ModelConfig
from backend.config.parameters import Parameters
from backend.engines.tensorrt.plan_facts import facts_path, graph_of
from backend.model_process.load_profile import counted_features
from profiler.feature_source import feature_source
from profiler.gpu_peaks import gpu_peaks
from profiler.host import sha256_of
from tests.fakes.driver import A100, made_up_driver
from tests.fakes.graphs import MS, write_mlp
from tests.unit.engines.tensorrt.test_plan_layout import FACTS


def test_features_on_a_gpu_are_estimated_from_the_graph(tmp_path: Path) -> None:
    source = feature_source(write_mlp(tmp_path), [1, 2], lambda: gpu_peaks(A100))
    assert (source.name, source.note, source.lasting) == ("estimate", None, True)
    small, large = (source.load(size, MS // 100) for size in (1, 2))
    assert 0 < small.compute < large.compute < 1
    assert 0 < small.dram < small.l2 < 1, "the graph is smaller than the cache, so most of it stays there"


def test_why_they_are_estimated_is_told(tmp_path: Path) -> None:
    source = feature_source(write_mlp(tmp_path), [1], lambda: gpu_peaks(A100), "there is no `ncu`")
    assert source.note == "features are estimated, since there is no `ncu`"
    (tmp_path / "model.plan").touch()
    source = feature_source(tmp_path / "model.plan", [1], lambda: gpu_peaks(A100), "there is no `ncu`")
    assert source.note == "features are neutral values, since there is no `ncu` and model.plan is not an ONNX graph"


def test_a_gpu_without_peaks_has_neutral_features(tmp_path: Path) -> None:
    source = feature_source(write_mlp(tmp_path), [1], lambda: gpu_peaks(replace(A100, clock_hz=0)))
    assert (source.name, source.lasting) == ("neutral", True)
    assert source.note is not None
    assert source.note.startswith("features are neutral values, since the GPU does not tell enough of itself: ")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """With the ONNX file beside it from which it was built."""
    onnx = write_mlp(tmp_path).rename(tmp_path / "model.onnx")
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")
    facts: Any = msgspec.structs.replace(FACTS, onnx_sha256=sha256_of(onnx))
    facts_path(plan).write_bytes(msgspec.json.encode(facts))
    return plan


def features_from(plan: Path) -> str:
    config = ModelConfig("m", "1", plan, 8, Parameters(), 0, (), (), {})
    return counted_features(config, plan.parent, [1]).name


def test_a_plans_work_is_counted_in_the_graph_that_it_was_built_from(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_driver(monkeypatch)
    assert features_from(plan) == "estimate"
    onnx = plan.with_suffix(".onnx")
    onnx.write_bytes(onnx.read_bytes() + b"\x72\x00")  # another model now
    assert graph_of(plan) is None
    assert features_from(plan) == "neutral"
    onnx.unlink()
    facts_path(plan).unlink()
    assert features_from(plan) == "neutral"
