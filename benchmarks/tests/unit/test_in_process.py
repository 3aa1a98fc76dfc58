"""The scheduler, lanes and engines in one process: real models on this machine's cores, without a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from backend.engines.onnxruntime.cpu_engine import OnnxCpuEngine
from backend.engines.protocol import BatchResult
from backend.errors import EngineError
from backend.load.arrivals import NO_DEADLINE_MS, Arrival, Traffic, poisson
from backend.scheduler_process.sample_log import SampleLog
from backend.simulation.simulator import SimulatedModel
from backend.tensors import Array, TensorSpec
from benchmarks.gpu_check.in_process import InProcess, ServedEngine
from benchmarks.tests.slow_model import write_slow
from predictor.samples import read_samples
from predictor.workload import Load, ModelProfile

MS = 1_000_000
PROFILE = ModelProfile((1, 8), (Load(2 * MS, 0.5, 0.5, 0.2), Load(8 * MS, 0.5, 0.5, 0.2)))


def served(engine: OnnxCpuEngine, name: str, *, aware: bool = True) -> ServedEngine:
    inputs: dict[str, Array] = {"x": np.ones((1, 16), np.float32)}
    return ServedEngine(SimulatedModel(name, PROFILE, interference_aware=aware, rejects=aware), engine, inputs)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[OnnxCpuEngine]:
    engine = OnnxCpuEngine(write_slow(tmp_path / "model.onnx", 20))
    yield engine
    engine.close()


@pytest.mark.parametrize("aware", [False, True])
def test_every_request_is_answered_and_every_batch_sampled(aware: bool, engine: OnnxCpuEngine, tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples.jsonl")
    device = InProcess([served(engine, name, aware=aware) for name in ("a", "b")], 2, "cpu", None)
    plan = poisson([Traffic("a", 200.0, 1e4), Traffic("b", 200.0, NO_DEADLINE_MS, 2)], 0.5, seed=1)
    outcomes = device.run(plan, log)
    device.close()
    log.close()
    assert [(o.model, o.intended_s, o.priority) for o in outcomes] == [(a.model, a.at_s, a.priority) for a in plan]
    assert {o.status for o in outcomes} == {"ok"}
    assert all(o.intended_s <= o.sent_s <= o.answered_s for o in outcomes)
    samples = read_samples(tmp_path / "samples.jsonl").samples
    assert sum(s.batch_size for s in samples) == len(plan)
    assert {(s.device, s.lane) for s in samples} == {("cpu", 0), ("cpu", 1)}
    assert any(s.co_runners for s in samples)


def test_a_load_without_samples_leaves_none_and_counts_from_its_own_start(
    engine: OnnxCpuEngine, tmp_path: Path
) -> None:
    device = InProcess([served(engine, "a")], 1, "cpu", None)
    device.run([Arrival(0.0, "a", NO_DEADLINE_MS)])
    log = SampleLog(tmp_path / "samples.jsonl")
    [outcome] = device.run([Arrival(0.1, "a", NO_DEADLINE_MS)], log)
    device.close()
    log.close()
    assert outcome.sent_s == pytest.approx(0.1, abs=0.09)
    assert len(read_samples(tmp_path / "samples.jsonl").samples) == 1


class Broken:
    """An engine whose every second batch fails; counts those that run at a time."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    identity = "broken"
    lost = None

    def __init__(self) -> None:
        self.runs = 0

    def run(self, *_: object, **__: object) -> BatchResult:
        self.runs += 1
        if self.runs % 2 == 0:
            raise EngineError("the model's run failed: no")
        return BatchResult([], 1)

    def close(self) -> None: ...


def test_a_batch_that_fails_fails_its_requests_alone() -> None:
    model = SimulatedModel("a", PROFILE, max_batch_size=1)
    device = InProcess([ServedEngine(model, Broken(), {})], 1, "cpu", None)
    outcomes = device.run([Arrival(0.0, "a", NO_DEADLINE_MS)] * 4)
    device.close()
    assert [o.status for o in outcomes] == ["ok", "failed"] * 2
    assert outcomes[1].error == "the model's run failed: no"
    assert outcomes[0].error == ""


def test_what_cannot_make_its_deadline_is_rejected_at_once_only_where_that_is_on(engine: OnnxCpuEngine) -> None:
    plan = [Arrival(0.0, "a", NO_DEADLINE_MS), Arrival(0.001, "a", 0.5)]
    for aware, status in ((True, "rejected"), (False, "ok")):
        device = InProcess([served(engine, "a", aware=aware)], 1, "cpu", None)
        assert [o.status for o in device.run(plan)] == ["ok", status]
        device.close()


class Waiting(Broken):
    """Runs until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def run(self, *_: object, **__: object) -> BatchResult:
        assert self.go.wait(30.0)
        return BatchResult([], 1)


def test_lanes_bound_how_many_run_at_a_time() -> None:
    """With one lane the second model's request waits for the first's; with two it does not."""
    for lanes, ended_first in ((1, "held"), (2, "free")):
        waiting, free = Waiting(), Waiting()
        free.go.set()
        models: Mapping[str, Waiting] = {"held": waiting, "free": free}
        device = InProcess(
            [ServedEngine(SimulatedModel(m, PROFILE), e, {}) for m, e in models.items()], lanes, "cpu", None
        )
        threading.Timer(0.2, waiting.go.set).start()
        outcomes = device.run([Arrival(0.0, "held", NO_DEADLINE_MS), Arrival(0.01, "free", NO_DEADLINE_MS)])
        device.close()
        assert min(outcomes, key=lambda o: o.answered_s).model == ended_first
