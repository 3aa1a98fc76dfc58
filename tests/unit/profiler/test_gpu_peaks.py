"""A GPU's peaks from its attributes, held against NVIDIA's data sheets, and features as shares of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cuda.bindings import runtime

from backend.config.model_config import ModelConfig
from backend.config.parameters import Parameters
from backend.device.cuda import hardware
from backend.device.facts import device_peaks
from backend.engines.tensorrt.plan_facts import facts_path, graph_of
from backend.errors import ConfigError
from backend.model_process.load_profile import counted_features
from profiler.feature_source import feature_source
from profiler.gpu_peaks import Hardware, gpu_peaks
from profiler.host import sha256_of
from profiler.peaks import PeaksError
from tests.fakes.driver import A100, made_up_driver
from tests.fakes.graphs import MS, write_mlp
from tests.unit.engines.tensorrt.test_plan_layout import FACTS

MHZ = 1_000_000
V100 = Hardware((7, 0), 80, 1530 * MHZ, 877 * MHZ, 4096, 6 << 20)
T4 = Hardware((7, 5), 40, 1590 * MHZ, 5001 * MHZ, 256, 4 << 20)
A10 = Hardware((8, 6), 72, 1695 * MHZ, 6251 * MHZ, 384, 6 << 20)


@pytest.mark.parametrize(
    ("gpu", "tera_operations", "gigabytes"),
    [(V100, 15.7, 900), (T4, 8.1, 320), (A100, 156, 1555), (A10, 62.5, 600)],
    ids=["V100", "T4", "A100", "A10"],
)
def test_peaks_are_those_of_the_data_sheet(gpu: Hardware, tera_operations: float, gigabytes: float) -> None:
    peaks = gpu_peaks(gpu)
    assert peaks.operations_per_s == pytest.approx(tera_operations * 1e12, rel=0.01)
    assert peaks.dram_bytes_per_s == pytest.approx(gigabytes * 1e9, rel=0.01)
    assert peaks.cache_bytes_per_s > peaks.dram_bytes_per_s
    assert peaks.cache_share_bytes == gpu.l2_bytes
    assert peaks.estimated


def test_a_gpu_newer_than_those_that_are_known_counts_as_the_newest_before_it() -> None:
    assert gpu_peaks(replace(A100, compute_capability=(8, 9))) == gpu_peaks(replace(A100, compute_capability=(8, 6)))
    assert gpu_peaks(replace(A100, compute_capability=(99, 0))) == gpu_peaks(replace(A100, compute_capability=(12, 0)))


def test_a_gpu_that_tells_too_little_has_no_peaks() -> None:
    with pytest.raises(PeaksError, match=r"^the peaks of GPUs with compute capability 3.5 are not known$"):
        gpu_peaks(replace(A100, compute_capability=(3, 5)))
    with pytest.raises(PeaksError, match=r"^the GPU does not tell enough of itself: .*memory_clock_hz=0"):
        gpu_peaks(replace(A100, memory_clock_hz=0))


def test_a_gpus_attributes_are_cudas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = made_up_driver(monkeypatch)
    assert hardware(0) == A100
    assert device_peaks(0, tmp_path) == gpu_peaks(A100)
    assert list(tmp_path.iterdir()) == []
    answers["cudaDeviceGetAttribute"] = (runtime.cudaError_t.cudaErrorInvalidValue, None)
    with pytest.raises(ConfigError, match=r"^GPU 0 does not tell cudaDevAttrComputeCapabilityMajor: cudaErrorInvalid"):
        hardware(0)


def test_features_on_a_gpu_are_estimated_from_the_graph(tmp_path: Path) -> None:
    source = feature_source(write_mlp(tmp_path), [1, 2], lambda: gpu_peaks(A100))
    assert (source.name, source.note, source.lasting) == ("estimate", None, True)
    small, large = (source.load(size, MS // 100) for size in (1, 2))
    assert 0 < small.compute < large.compute < 1
    assert 0 < small.dram < small.l2 < 1, "the graph is smaller than the cache, so most of it stays there"


def test_a_note_tells_why_features_are_estimated(tmp_path: Path) -> None:
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
