"""`isochrone profile` on a GPU with its counters: a fake `ncu` and a fake GPU everywhere, real ones where they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from backend.commands.profile import ProfileOptions, profile
from backend.config.model_config import ModelConfig
from backend.engines.loading import read_model_specs
from backend.engines.protocol import Engine
from backend.engines.tensorrt.engine import TensorRtEngine
from backend.engines.tensorrt.plan_facts import PlanFacts, facts_path
from backend.engines.tensorrt.plan_runtime import OptimizationProfile, PlanTensor
from backend.model_process.placement import open_engine
from backend.profiling.repository import read_config
from backend.runtime_dir import VARIABLE, runtime_dir
from backend.tensors import Datatype
from backend.trial.launch import remember, remembered_name
from backend.trial.messages import Fill, Trial
from backend.trial.question import question_of
from predictor.workload import FEATURES
from profiler.host import sha256_of
from profiler.nsight import METRICS
from profiler.profile_file import ProfileFile, read_profile
from tests.fakes import fake_ncu
from tests.fakes.double import BATCH_SIZES, WIDTH, double_plan
from tests.fakes.driver import made_up_driver
from tests.fakes.fake_gpu import FakeDevice
from tests.fakes.graphs import write_mlp

CONFIG = """
backend: "isochrone"
max_batch_size: 2
instance_group [{ kind: KIND_GPU }]
parameters { key: "engine" value { string_value: "tensorrt" } }
parameters { key: "engine_process" value { string_value: "own" } }
"""


@dataclass
class Profiled:
    """A repository of one plan, whose ONNX file lies beside it."""

    repository: Path
    open: Callable[[ModelConfig], Engine]

    def run(self, batch_sizes: str = "1,2") -> ProfileFile:
        """What is then in the file."""
        options = ProfileOptions(self.repository, batch_sizes=batch_sizes, seconds=0.001)
        assert profile(options, self.open) == 0
        found = read_profile(self.repository / "double" / "1" / "profile.json")
        assert found is not None
        return found


def open_fake(config: ModelConfig) -> TensorRtEngine:
    device = FakeDevice()
    return TensorRtEngine(double_plan(device), device, config.model_file, config.options(2))


def write_fake_plan(version: Path) -> None:
    onnx = write_mlp(version).rename(version / "model.onnx")
    plan = version / "model.plan"
    plan.write_bytes(b"plan")
    tensors = (
        PlanTensor("x", Datatype.FP32, (-1, WIDTH), True),
        PlanTensor("y", Datatype.FP32, (-1, WIDTH), False),
        PlanTensor("total", Datatype.FP32, (-1,), False),
    )
    profiles = tuple(OptimizationProfile({"x": (1, WIDTH)}, {"x": (n, WIDTH)}, {"x": (n, WIDTH)}) for n in BATCH_SIZES)
    facts = PlanFacts(1, 4, "10.0", "NVIDIA A100-SXM4-40GB", "8.0", "model", sha256_of(onnx), tensors, profiles)
    facts_path(plan).write_bytes(msgspec.json.encode(facts))


def remember_trial(version: Path) -> None:
    """As if the plan had been tried, which takes a process of its own, where the fake GPU is not."""
    plan = version / "model.plan"
    question = question_of(read_config(version.parent / "config.pbtxt"), plan, read_model_specs(plan, 0), 0)
    made_up = {"x": Fill((1, WIDTH))}
    path = runtime_dir() / "trials" / remembered_name(question)
    remember(path, question, Trial(made_up, made_up, batch=True, batches=True))


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the plan goes."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "run"))
    version = tmp_path / "models" / "double" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    return version


@pytest.fixture
def fake(version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profiled:
    """`ncu` is in the folder `bin`, for tests to change."""
    write_fake_plan(version)
    remember_trial(version)
    made_up_driver(monkeypatch)
    monkeypatch.setenv("PATH", f"{fake_ncu.install(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}")
    return Profiled(version.parents[1], open_fake)


@pytest.fixture(params=["fake", "real"])
def profiled(request: pytest.FixtureRequest, version: Path) -> Profiled:
    if request.param == "fake":
        made: Profiled = request.getfixturevalue("fake")
        return made
    if shutil.which("ncu") is None:
        pytest.skip("there is no `ncu` here to read a GPU's counters with")
    plan: Path = request.getfixturevalue("real_plan")
    for file in (plan, facts_path(plan), plan.with_suffix(".onnx")):
        shutil.copy(file, version)
    return Profiled(version.parents[1], open_engine)


def test_features_are_the_counters_of_each_batch_size(profiled: Profiled) -> None:
    found = profiled.run()
    if found.note and "ERR_NVGPUCTRPERM" in found.note:
        pytest.skip(found.note)
    assert (found.features_from, found.note) == ("nsight", None)
    for entry in found.entries:
        shares = msgspec.structs.astuple(entry.features)
        assert all(0.0 <= share <= 1.0 for share in shares)
        assert max(shares) > 0.0
        assert entry.kernel_ns > 0
        if profiled.open is open_fake:
            wanted = [fake_ncu.percent(METRICS[name], entry.batch_size) / 100 for name in FEATURES]
            assert list(shares) == pytest.approx(wanted)


def test_what_was_counted_is_not_counted_again(fake: Profiled, tmp_path: Path) -> None:
    first = fake.run(batch_sizes="1")
    log = tmp_path / "counted"
    ncu = tmp_path / "bin" / "ncu"
    ncu.write_text(ncu.read_text().replace("exec", f'echo "$*" >> {log}; exec'))
    second = fake.run()
    assert [line.split()[-1] for line in log.read_text().splitlines()] == ["2"]
    assert second.entries[0] == first.entries[0]
    ncu.unlink()
    assert fake.run() == second


def test_counters_that_are_not_permitted(fake: Profiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Features are estimated then, and said to be; with the permission they are counted, and times stay."""
    fake_ncu.install(tmp_path / "bin", refuses=True)
    estimated = fake.run()
    assert estimated.features_from == "estimate"
    assert estimated.note is not None
    assert estimated.note.startswith(
        "features are estimated, since the driver permits only administrators to read the GPU's counters (ERR_NVGPUCTRP"
    )
    assert f"double: {estimated.note}" in capsys.readouterr().out
    fake_ncu.install(tmp_path / "bin")
    counted = fake.run()
    assert (counted.features_from, counted.note) == ("nsight", None)
    assert [entry.p50_ns for entry in counted.entries] == [entry.p50_ns for entry in estimated.entries]
    assert counted.entries[0].features != estimated.entries[0].features


def test_a_batch_that_fails_under_ncu(fake: Profiled, tmp_path: Path) -> None:
    ncu = tmp_path / "bin" / "ncu"
    ncu.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    found = fake.run()
    assert found.features_from == "estimate"
    assert found.note == (
        "features are estimated, since `ncu` failed: backend.profiling.one_batch failed with status 3: broken"
    )
