"""ONNX Runtime on the CPU as an engine: what it is given and gives, and what happens in the execution's context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from onnx import TensorProto, helper

from backend.engines.onnxruntime.cpu_engine import OnnxCpuEngine
from backend.errors import EngineError
from backend.linux.execution_priority import ExecutionPriority
from tests.fakes.graphs import write_mlp, write_model

TEXT = ([helper.make_node("Identity", ["x"], ["y"])], TensorProto.STRING, TensorProto.STRING)
TO_TEXT = ([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)], TensorProto.FLOAT, TensorProto.STRING)


class WatchedPriority(ExecutionPriority):
    """A context that counts how often it was entered, and knows whether it is now."""

    def __init__(self) -> None:
        self.entered, self.inside = 0, False

    def __enter__(self) -> None:
        self.entered, self.inside = self.entered + 1, True

    def __exit__(self, *_: object) -> None:
        self.inside = False


def engine_of(folder: Path, graph: tuple[Any, int, int]) -> OnnxCpuEngine:
    nodes, given, wanted = graph
    dtypes = {"x": given, "y": wanted}
    return OnnxCpuEngine(write_model(folder / "model.onnx", nodes, {"x": ["n"]}, {"y": ["n"]}, dtypes=dtypes))


def run(engine: OnnxCpuEngine, *parts: npt.NDArray[Any], lane: int = 0) -> npt.NDArray[Any]:
    watched = WatchedPriority()
    ran = engine.run(lane, {"x": list(parts)}, ["y"], watched)
    assert (watched.entered, watched.inside) == (1, False)
    assert ran.exec_ns > 0
    (found,) = ran.outputs
    return found


def test_a_batch_of_several_parts(tmp_path: Path) -> None:
    engine = OnnxCpuEngine(write_mlp(tmp_path))
    found = run(engine, np.ones((1, 16), np.float32), np.full((2, 16), 2.0, np.float32))
    assert found[:, 0].tolist() == [17.0, 33.0, 33.0]


def test_an_input_that_does_not_lie_row_by_row(tmp_path: Path) -> None:
    x = np.asfortranarray(np.arange(32, dtype=np.float32).reshape(2, 16))
    engine = OnnxCpuEngine(write_mlp(tmp_path))
    np.testing.assert_array_equal(run(engine, x), run(engine, np.ascontiguousarray(x)))


def test_outputs_are_the_callers_own(tmp_path: Path) -> None:
    engine = OnnxCpuEngine(write_mlp(tmp_path))
    first = run(engine, np.ones((1, 16), np.float32))
    kept = first.copy()
    first += 1.0
    np.testing.assert_array_equal(run(engine, np.ones((1, 16), np.float32)), kept)
    engine.close()
    np.testing.assert_array_equal(first, kept + 1.0)


def test_text_in_and_out(tmp_path: Path) -> None:
    assert run(engine_of(tmp_path, TEXT), np.array(["a", "ü"], np.object_)).tolist() == ["a", "ü"]


def test_text_out_alone(tmp_path: Path) -> None:
    assert run(engine_of(tmp_path, TO_TEXT), np.array([1.0], np.float32)).tolist() == ["1"]


def test_a_run_that_fails_is_left(tmp_path: Path) -> None:
    arrays, text = OnnxCpuEngine(write_mlp(tmp_path)), engine_of(tmp_path, TEXT)
    for engine, x in ((arrays, np.ones((1, 15), np.float32)), (text, np.array([1], np.int64))):
        watched = WatchedPriority()
        with pytest.raises(EngineError, match="the model's run failed"):
            engine.run(0, {"x": [x]}, ["y"], watched)
        assert (watched.entered, watched.inside) == (1, False)


def test_arrays_change_hands_outside_of_the_execution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds Python's lock there may hold it for as long as another batch takes."""
    engine, watched, seen = OnnxCpuEngine(write_mlp(tmp_path)), WatchedPriority(), list[bool]()
    into, back = onnxruntime.OrtValue.ortvalue_from_numpy, onnxruntime.IOBinding.copy_outputs_to_cpu

    def noted_into(array: npt.NDArray[Any]) -> onnxruntime.OrtValue:
        seen.append(watched.inside)
        return into(array)

    def noted_back(binding: onnxruntime.IOBinding) -> list[npt.NDArray[Any]]:
        seen.append(watched.inside)
        found: list[npt.NDArray[Any]] = back(binding)
        return found

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", noted_into)
    monkeypatch.setattr(onnxruntime.IOBinding, "copy_outputs_to_cpu", noted_back)
    engine.run(0, {"x": [np.ones((1, 16), np.float32)]}, ["y"], watched)
    assert seen == [False, False]
    assert watched.entered == 1


def test_an_exclusive_run_answers_the_same_without_a_binding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, watched = OnnxCpuEngine(write_mlp(tmp_path)), WatchedPriority()
    parts = [np.arange(32, dtype=np.float32).reshape(2, 16), np.ones((1, 16), np.float32)]
    bound = run(engine, *parts)
    monkeypatch.setattr(onnxruntime.InferenceSession, "io_binding", None)
    ran = engine.run(0, {"x": parts}, ["y"], watched, exclusive=True)
    assert (watched.entered, watched.inside) == (1, False)
    assert ran.exec_ns > 0
    np.testing.assert_array_equal(ran.outputs[0], bound, strict=True)
