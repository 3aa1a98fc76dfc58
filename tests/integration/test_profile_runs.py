"""Runs that measure a model as it loads, between a real scheduler's process and a fake engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backend.model_process.loading.profile_runs as runs_module
from backend.config.model_config import ModelConfig
from backend.config.parameters import Parameters
from backend.engines.protocol import BatchResult
from backend.errors import ConfigError, EngineError
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.model_process.loading.joining import LOWEST_CLASS, NEXT_CLASS, PATIENCE_S
from backend.model_process.loading.profile_runs import ProfileRuns
from backend.model_process.request import Pending
from backend.tensors import BY_CONFIG, TensorSpec
from tests.fakes.fake_model import FakeModel, eventually

pytestmark = pytest.mark.usefixtures("runtime_dir")

X = TensorSpec("x", BY_CONFIG["TYPE_FP32"], (4,), optional=False)
CONFIG = ModelConfig("loaded", "1", Path("model.onnx"), 4, Parameters(device_lanes=2), None, (X,), (X,), {})
ROW_NS = 3_000_000


@dataclass
class FakeEngine:
    """Takes the same for each row; `sizes`: of its batches."""

    error: EngineError | None = None
    sizes: list[int] = field(default_factory=list)
    on_lanes: list[bool] = field(default_factory=list)

    def run(
        self, _lane: int, feeds: Any, outputs: Sequence[str], priority: ExecutionPriority = ORDINARY_PRIORITY
    ) -> BatchResult:
        assert list(outputs) == ["x"]
        if self.error is not None:
            raise self.error
        rows = len(feeds["x"][0])
        self.sizes.append(rows)
        self.on_lanes.append(priority is not ORDINARY_PRIORITY)
        return BatchResult([], ROW_NS * rows)


def inputs(rows: int | None) -> dict[str, Any]:
    return {"x": np.zeros((rows or 1, 4), np.float32)}


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def runs(engine: FakeEngine) -> Iterator[ProfileRuns]:
    with ProfileRuns(CONFIG, engine, inputs) as found:  # type: ignore[arg-type]
        yield found


def submitted(runs: ProfileRuns, monkeypatch: pytest.MonkeyPatch) -> list[Pending]:
    """What is asked of the scheduler from the second run on."""
    found: list[Pending] = []
    assert runs.run(1) == ROW_NS
    assert runs._dispatcher is not None
    submit = runs._dispatcher.submit

    def recording(requests: Sequence[Pending]) -> None:
        found.extend(requests)
        submit(requests)

    monkeypatch.setattr(runs._dispatcher, "submit", recording)
    return found


def test_a_run_is_a_launch_of_the_lowest_class(
    runs: ProfileRuns, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = submitted(runs, monkeypatch)
    assert runs.run(4) == 4 * ROW_NS
    assert [(one.rows, one.priority, one.deadline_ns) for one in asked] == [(4, LOWEST_CLASS, None)]
    assert engine.sizes == [1, 1, 4]  # the first of all is the guess that the others are decided by
    assert engine.on_lanes == [False, True, True]
    assert runs.clock() == 5 * ROW_NS


def test_what_it_takes_beside_others_counts_less_by_the_predicted_slowdown(
    runs: ProfileRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(runs, monkeypatch)
    monkeypatch.setattr(runs, "_scheduled", lambda _: runs_module._Taken(ROW_NS, 1.5))
    assert runs.run(1) == ROW_NS / 1.5


def test_a_run_that_was_suspended_is_repeated_but_not_for_ever(
    runs: ProfileRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(runs, monkeypatch)
    suspended, other = runs_module._Taken(9 * ROW_NS, suspended=True), runs_module._Taken(2 * ROW_NS)
    taken = iter([suspended, other, suspended, suspended, suspended])
    monkeypatch.setattr(runs, "_scheduled", lambda _: next(taken))
    assert [runs.run(1), runs.run(1)] == [2 * ROW_NS, 9 * ROW_NS]


def test_a_busy_device_is_waited_for_only_so_long(
    runs: ProfileRuns, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runs_module, "PATIENCE_S", 0.3)
    monkeypatch.setattr(runs_module, "WAIT_MAX_S", 0.2)
    asked = submitted(runs, monkeypatch)
    with FakeModel() as other:
        other.fill(lanes=2)
        assert runs.run(1) == ROW_NS
        assert [one.priority for one in asked] == [LOWEST_CLASS, NEXT_CLASS]
        assert engine.on_lanes == [False, True, False]  # in the end without the scheduler's leave
        assert not runs.patient
        assert runs.clock() > 1 << 59
        assert "its profile waited" in caplog.text
        other.gate.set()
        eventually(lambda: not other.dispatcher._running)
        runs.run(1)
        assert [one.priority for one in asked][2:] == [NEXT_CLASS]  # no more patience


def test_a_run_that_fails_raises_and_the_next_one_runs(
    runs: ProfileRuns, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(runs, monkeypatch)
    engine.error = EngineError("the model's run failed: x")
    with pytest.raises(EngineError, match="the model's run failed: x"):
        runs.run(2)
    engine.error = None
    assert runs.run(2) == 2 * ROW_NS


def test_without_a_scheduler_it_runs_all_the_same(
    runs: ProfileRuns, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise ConfigError("no")

    monkeypatch.setattr("backend.model_process.loading.joining.Dispatcher", refused)
    began_s = time.monotonic()
    assert [runs.run(1), runs.run(4)] == [ROW_NS, 4 * ROW_NS]
    assert engine.on_lanes == [False] * 3
    assert time.monotonic() - began_s < PATIENCE_S
