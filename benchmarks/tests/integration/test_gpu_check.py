"""Parts of a GPU's check that need none: which answers agree, its time, its loads, which engine runs."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pynvml
import pytest
from cuda.bindings import runtime

from backend.engines.onnxruntime.cpu_engine import OnnxCpuEngine
from backend.errors import ConfigError
from backend.load.outcomes import MeasuredLoad, Outcome
from benchmarks.gpu_check import build
from benchmarks.gpu_check.agreement import agrees, compare, relative_error
from benchmarks.gpu_check.gpu_report import report
from benchmarks.gpu_check.order_turns import seconds_of, traffic_at
from benchmarks.gpu_check.plan import QUICK, SLO_MIN_MS
from benchmarks.gpu_check.records import AWARE, IN_PROCESS, Agreement, BuiltModel, CheckRecords, OrderTurn
from benchmarks.gpu_check.target import Target, the_cpu, the_gpu
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.steps import Step, TimeBudget, TimeIsOver
from benchmarks.study.plan import OTHERS, TEST_SETS, TRAINED, TRAINING
from profiler.profile_file import FeatureShares, ProfileEntry, ProfileFile
from tests.fakes.driver import OK, made_up_driver
from tests.fakes.graphs import ones, write_mlp

ROOT = Path(__file__).resolve().parents[3]
MS = 1_000_000


def there_is_a_gpu() -> bool:
    try:
        the_gpu()
    except ConfigError:
        return False
    return True


without_gpu = pytest.mark.skipif(there_is_a_gpu(), reason="there is a GPU here")


# Outputs


@pytest.mark.parametrize(
    ("found", "wanted", "error"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.005], [3.0, 4.0], 0.001),
        ([0.0, 0.5], [0.0, 0.0], 0.5),
        ([], [], 0.0),
        ([3.0], [3.0, 4.0], None),
        ([3.0, math.nan], [3.0, 4.0], None),
        ([3.0, 4.0], [3.0, math.inf], None),
    ],
)
def test_the_relative_error(found: list[float], wanted: list[float], error: float | None) -> None:
    got = relative_error(np.array(found, np.float32), np.array(wanted, np.float32))
    assert got == (None if error is None else pytest.approx(error, rel=1e-3))


def test_one_output_that_differs_is_enough() -> None:
    assert agrees(Agreement(1, {"a": 0.0, "b": 9e-4}))
    assert not agrees(Agreement(1, {"a": 0.0, "b": 2e-3}))
    assert not agrees(Agreement(1, {"a": 0.0, "b": None}))
    assert not agrees(Agreement(1, {}))


def test_another_model_does_not_agree(tmp_path: Path) -> None:
    same, other = write_mlp(tmp_path), tmp_path / "other.onnx"
    shutil.copy(same, other)
    content = other.read_bytes()
    weight = ones(1).tobytes()
    other.write_bytes(content.replace(weight * 160, np.float32(1.01).tobytes() * 160))
    assert other.read_bytes() != content
    reference = OnnxCpuEngine(same)
    inputs = {"x": ones(3, 16)}
    assert compare(OnnxCpuEngine(same), reference, inputs) == {"y": 0.0}
    assert compare(OnnxCpuEngine(other), reference, inputs)["y"] == pytest.approx(0.16 / 17, rel=1e-3)


# Time


def step(seconds: float) -> Step:
    return Step("building a", seconds, lambda: None)


def test_no_step_begins_that_would_end_too_late() -> None:
    now_s = 100.0
    budget = TimeBudget(60.0, lambda: now_s)
    budget.check(step(60.0))
    now_s = 130.0
    budget.check(step(30.0))
    with pytest.raises(TimeIsOver, match=r"^the time is over before 'building a', which takes about 31 s; .* go on$"):
        budget.check(step(31.0))


def test_a_step_that_never_fits() -> None:
    with pytest.raises(TimeIsOver, match=r"^'building a' takes about 61 s, more than --minutes allows in all$"):
        TimeBudget(60.0).check(step(61.0))


# Loads


def profile(p50_ms: float, p95_ms: float, at_8_ms: float) -> ProfileFile:
    def entry(size: int, p50_ms: float, p95_ms: float) -> ProfileEntry:
        low, high = round(p50_ms * MS), round(p95_ms * MS)
        shares = FeatureShares(0.5, 0.5, 0.2)
        return ProfileEntry(size, low, (low, low), high, (high, high), size / p50_ms * 1e3, shares, 9, 6, 0, True)

    entries = (entry(1, p50_ms, p95_ms), entry(8, at_8_ms, at_8_ms))
    return ProfileFile(1, "m", "1", "cpu", "engine", "0" * 64, "graph", entries)


def test_a_load_of_one_fills_one_lane_with_the_best_batches() -> None:
    profiles = {"a": profile(10, 20, 40), "b": profile(1, 2, 16), "c": profile(4, 4, 8), "d": profile(1, 2, 8)}
    asked = traffic_at(profiles, 1.0)
    per_row_s = {"a": 5e-3, "b": 1e-3, "c": 1e-3, "d": 1e-3}
    assert sum(t.rate_per_s * per_row_s[t.model] for t in asked) == pytest.approx(1.0)
    assert len({t.rate_per_s for t in asked}) == 1
    assert [t.slo_ms for t in asked] == [40.0, SLO_MIN_MS, 32.0, SLO_MIN_MS]
    assert [t.priority_class for t in asked] == [1, 1, 1, 2]


def test_a_load_has_no_more_requests_than_it_may() -> None:
    assert seconds_of(100.0, 4.0, 1_000) == 4.0
    assert seconds_of(1_000.0, 4.0, 1_000) == 1.0


@pytest.mark.parametrize(("missing", "logs"), [((), 4), (("vgg19",), 4), (OTHERS, 3), (TRAINED, 2)])
def test_the_studys_logs_are_of_the_models_that_there_are(missing: tuple[str, ...], logs: int) -> None:
    there = [model for model in QUICK.models if model not in missing]
    plan = QUICK.study_of(there)
    assert len(plan.logs) == logs
    assert set(plan.models) == set(there)


# Engines


def records(
    tmp_path: Path, models: tuple[str, ...] = ("a",), engines: tuple[str, ...] = ("onnxruntime",)
) -> CheckRecords:
    for model in models:
        (tmp_path / "source" / model / "1").mkdir(parents=True)
        write_mlp(tmp_path / "source" / model / "1").rename(tmp_path / "source" / model / "1" / "model.onnx")
    target = Target(None, "this", engines, {})
    plan = msgspec.structs.replace(QUICK, models=models)
    return CheckRecords(plan, target, tmp_path / "records", tmp_path / "source")


def do(found: CheckRecords, budget: TimeBudget | None = None) -> None:
    for each in build.steps(found, budget or TimeBudget(600.0)):
        each.run()


@without_gpu
def test_onnx_runtime_where_there_can_be_no_plan(tmp_path: Path) -> None:
    found = records(tmp_path, engines=("tensorrt", "onnxruntime"))
    do(found)
    built = found.built()["a"]
    assert built.engine == "onnxruntime"
    assert "isochrone build" in built.skipped["tensorrt"]
    assert "Traceback" not in built.skipped["tensorrt"]
    build.need_models(found)


def test_a_model_that_no_engine_takes_is_left_out_and_said_so(tmp_path: Path) -> None:
    found = records(tmp_path, ("a", "b"))
    (tmp_path / "source" / "b" / "1" / "model.onnx").write_bytes(b"no model")
    do(found)
    assert found.usable() == {"a": "onnxruntime"}
    assert "ONNX Runtime cannot load" in found.built()["b"].skipped["onnxruntime"]
    found.keep_built("a", BuiltModel(None, 1.0, {"onnxruntime": "no"}))
    with pytest.raises(BenchmarkError, match=r"^no model can be run here, a: onnxruntime: no; b: onnxruntime: ONNX"):
        build.need_models(found)


def test_a_plan_that_is_cut_by_the_end_of_time_is_built_another_time(tmp_path: Path) -> None:
    found = records(tmp_path, engines=("tensorrt", "onnxruntime"))
    with pytest.raises(TimeIsOver, match=r"^the time is over while a plan of 'a' is built;"):
        do(found, TimeBudget(0.05))
    assert found.built() == {}


def test_a_plan_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_PLAN_MAX_S", 0.05)
    found = records(tmp_path, engines=("tensorrt", "onnxruntime"))
    do(found)
    assert found.built()["a"].engine == "onnxruntime"
    assert found.built()["a"].skipped["tensorrt"].startswith("the plan was not built in")


def test_what_was_built_is_not_built_again(tmp_path: Path) -> None:
    found = records(tmp_path, ("a", "b"))
    found.keep_built("a", BuiltModel("onnxruntime", 1.0, {}))
    assert [each.name for each in build.steps(found, TimeBudget(1.0))] == ["building b"]


def test_another_plan_or_device_does_not_mix_with_the_records(tmp_path: Path) -> None:
    first = records(tmp_path)
    first.begin()
    first.begin()
    other = CheckRecords(first.plan, Target(None, "that", ("onnxruntime",), {}), first.folder, first.source)
    with pytest.raises(BenchmarkError, match="holds records of another plan, device, version or set of models"):
        other.begin()


# The report


def test_where_nothing_was_answered_there_is_no_latency(tmp_path: Path) -> None:
    found = records(tmp_path)
    refused = [Outcome("a", 0.0, 0.0, 0.0, 10.0, 1, "rejected")]
    measured = [MeasuredLoad(AWARE, load, 0, 1.0, refused) for load in found.plan.loads]
    found.keep_turn(OrderTurn(IN_PROCESS, 2, AWARE, [1.0], ["fast", "slow"], measured))
    text = report(found, "the test records none")
    assert "| 2 | 0.7 | 1 | – | 0 (0 / –) | – | 0 | – | – |" in text
    assert "Clocks before and after each load: fast; slow." in text
    assert "Skipped: the test records none." in text


# The command


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "benchmarks.gpu_check", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@without_gpu
def test_no_gpu_is_one_sentence(tmp_path: Path) -> None:
    done = command(f"--folder={tmp_path / 'records'}", f"--out={tmp_path / 'gpu.md'}")
    assert done.returncode == 2
    assert done.stderr.startswith("gpu-check: the check needs a GPU with NVIDIA's driver, but there is none that suff")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_none() -> None:
    done = command("--device=cpu", "--part=everything")
    assert done.returncode == 2
    assert done.stderr == (
        "gpu-check: --part must be of 'build', 'check', 'profile', 'colocate', 'report', got 'everything'\n"
    )


def test_the_facts_name_what_figures_depend_on() -> None:
    facts = the_cpu().facts
    assert {"Python", "onnxruntime", "numpy", "cores"} <= set(facts)
    assert not any(text in ("none", "") for text in facts.values())


def test_the_facts_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = made_up_driver(monkeypatch)
    monkeypatch.setattr(runtime, "cudaSetDevice", lambda _: (OK,))
    monkeypatch.setattr(runtime, "cudaMemGetInfo", lambda: (OK, 1, 40 << 30))
    monkeypatch.setattr(runtime, "cudaGetDeviceProperties", lambda _: (OK, SimpleNamespace(name=b"NVIDIA A100\0\0")))
    target = the_gpu()
    assert (target.name, target.device, target.kind) == ("NVIDIA A100", "gpu-0", "KIND_GPU")
    told = {name: target.facts[name] for name in ("compute capability", "memory", "driver", "highest clocks")}
    assert told == {
        "compute capability": "8.0",
        "memory": "40 GiB",
        "driver": "570.1",
        "highest clocks": "SM 1410 MHz, memory 1215 MHz",
    }
    assert target.clocks() == "SM 1410 MHz, memory 1215 MHz, slowed by nothing"
    answers["nvmlDeviceGetCurrentClocksThrottleReasons"] = pynvml.nvmlClocksThrottleReasonSwPowerCap
    answers["nvmlDeviceGetClockInfo"] = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert target.clocks() == "not told, slowed by its power cap"


def test_the_study_needs_all_its_logs(tmp_path: Path) -> None:
    found = records(tmp_path, TRAINED)
    for model in TRAINED:
        found.keep_built(model, BuiltModel("onnxruntime", 1.0, {}))
    assert {log.name for log in found.study.plan.logs} == {TRAINING, TEST_SETS[0], TEST_SETS[2]}
    assert not found.study_is_complete()
