"""A batch that fails, or whose outputs have other rows, runs again in parts: each request has its own answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.config.model_config import ModelConfig
from backend.config.parameters import Parameters
from backend.engines.protocol import BatchResult, Engine
from backend.errors import EngineError, EngineLostError
from backend.linux.execution_priority import ORDINARY_PRIORITY
from backend.model_process.batch import Answered, Batch
from backend.model_process.batch_runner import BatchRunner
from backend.model_process.request import Pending
from backend.scheduler.messages import Finish
from backend.tensors import BY_CONFIG, Array, Feeds, TensorSpec

FLOAT = BY_CONFIG["TYPE_FP32"]
SPECS = (TensorSpec("x", FLOAT, (1,)),), (TensorSpec("y", FLOAT, (1,)),)
CONFIG = ModelConfig("m", "1", Path("model.onnx"), 8, Parameters(), None, *SPECS, reshaped={})
BAD = -1.0
POISON = -2.0


class FakeEngine:
    """y is x. A batch with a BAD value fails, one with POISON takes the engine along; `doubles`: y has x twice."""

    inputs, outputs, identity = SPECS[0], SPECS[1], "fake"
    lost: str | None = None

    def __init__(self, *, doubles: bool = False, most: int = 8) -> None:
        self.doubles, self.most = doubles, most
        self.runs: list[list[float]] = []
        self.exclusive: list[bool] = []

    def run(self, _lane: int, feeds: Feeds, *_: object, exclusive: bool = False) -> BatchResult:
        self.exclusive.append(exclusive)
        x: Any = np.concatenate(list(feeds["x"]))
        self.runs.append(x.ravel().tolist())
        if len(x) > self.most:
            raise MemoryError
        if BAD in x:
            raise EngineError("the model's run failed: bad value")
        if POISON in x:
            raise EngineLostError("the engine is gone")
        y: Array = np.concatenate([x, x]) if self.doubles and len(feeds["x"]) > 1 else x
        return BatchResult([y], 10)

    def close(self) -> None:
        """Nothing to give back."""


class Runner:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        model: Engine = engine
        responder: Any = None  # nothing is answered here
        self.runner = BatchRunner(CONFIG, model, responder)

    def run(self, *values: float, leased: bool = False) -> tuple[Batch, list[Answered]]:
        inputs: list[dict[str, Array]] = [{"x": np.array([[value]], np.float32)} for value in values]
        requests = [Pending(i, None, x, ("y",), 1, 0, 0, None, 1) for i, x in enumerate(inputs)]
        batch = Batch(7, 0, requests, None, 0, leased=leased)
        self.engine.runs.clear()
        self.engine.exclusive.clear()
        return batch, self.runner.run(batch, ORDINARY_PRIORITY)


def values(answers: list[Answered]) -> list[float | str]:
    return [str(a) if isinstance(a, Exception) else float(np.asarray(a[0][1]).ravel()[0]) for a in answers]


def test_a_batch_that_runs_runs_once() -> None:
    runner = Runner(FakeEngine())
    batch, answers = runner.run(1, 2, 3)
    assert values(answers) == [1, 2, 3]
    assert runner.engine.runs == [[1, 2, 3]]
    assert (batch.rerun, batch.finish(failed=False)) == (False, Finish(7, 10))


def test_a_leased_batch_has_the_process_to_itself() -> None:
    runner = Runner(FakeEngine())
    for leased in (True, False):
        runner.run(1, leased=leased)
        assert runner.engine.exclusive == [leased]


@pytest.mark.parametrize("place", range(8))
def test_only_the_request_that_fails_does(place: int) -> None:
    runner = Runner(FakeEngine())
    given = [float(i) for i in range(1, 9)]
    given[place] = BAD
    batch, answers = runner.run(*given)
    assert values(answers) == [v if v != BAD else "the model's run failed: bad value" for v in given]
    assert len(runner.engine.runs) == 7  # halves of halves of eight
    assert batch.rerun
    assert batch.finish(failed=True) == batch.finish(failed=False) == Finish(7, None)


def test_if_all_fail_the_runs_are_bounded() -> None:
    runner = Runner(FakeEngine())
    _, answers = runner.run(*[BAD] * 8)
    assert all(isinstance(answer, EngineError) for answer in answers)
    assert len(runner.engine.runs) == 15


def test_a_batch_that_memory_is_short_for_runs_in_parts() -> None:
    runner = Runner(FakeEngine(most=2))
    assert values(runner.run(1, 2, 3, 4)[1]) == [1, 2, 3, 4]
    assert runner.engine.runs == [[1, 2, 3, 4], [1, 2], [3, 4]]


def test_a_request_that_fails_alone_is_not_run_again() -> None:
    runner = Runner(FakeEngine())
    assert values(runner.run(BAD)[1]) == ["the model's run failed: bad value"]
    assert runner.engine.runs == [[BAD]]


def test_where_the_engine_is_gone_nothing_is_run_again() -> None:
    runner = Runner(FakeEngine())
    assert values(runner.run(1, POISON)[1]) == ["the engine is gone"] * 2
    assert runner.engine.runs == [[1, POISON]]
    runner.engine.lost = "a sticky error"
    assert values(runner.run(1, BAD)[1]) == ["the model's run failed: bad value"] * 2
    assert runner.engine.runs == [[1, BAD]]


def test_other_rows_than_the_batchs_end_batching(caplog: pytest.LogCaptureFixture) -> None:
    runner = Runner(FakeEngine(doubles=True))
    assert values(runner.run(1, 2, 3)[1]) == [1, 2, 3]
    assert runner.engine.runs == [[1, 2, 3], [1], [2], [3]]
    assert runner.runner.separate
    assert values(runner.run(4, BAD, 5)[1]) == [4, "the model's run failed: bad value", 5]
    assert runner.engine.runs == [[4], [BAD], [5]]
    assert caplog.text.count("model 'm' cannot be batched: output 'y' has shape [6, 1] for a batch of 3 rows") == 1


def test_the_time_of_a_batch_in_parts_is_that_of_all_runs() -> None:
    batch, _ = Runner(FakeEngine(doubles=True)).run(1, 2)
    assert batch.exec_ns == 30
