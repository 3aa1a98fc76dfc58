"""Trials of model files: inputs that they run on, and whether batching changes their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from backend.engines.onnxruntime.session import read_specs
from backend.engines.protocol import DEFAULT_ONNX_OPTIONS
from backend.trial import session as session_module
from backend.trial.batching import ODD_SHARE, SOLO_TOLERANCE, close
from backend.trial.messages import Fill, Question, Sample, Trial
from backend.trial.process import Clock, try_model
from backend.trial.question import question_of
from backend.trial.session import opened
from tests.server.harness import graph, identity, mlp

F, I64 = np.float32, np.int64
node = helper.make_node


def question(file: Path, **more: Any) -> Question:
    asked = Question("", str(file), "onnxruntime", "", None, DEFAULT_ONNX_OPTIONS, {}, (), 8)
    return msgspec.structs.replace(asked, **more)


def tried(
    folder: Path,
    model: onnx.ModelProto,
    *,
    batch: bool = True,
    limits_s: tuple[float, float] = (60.0, 60.0),
    **more: Any,
) -> Trial:
    """limits_s: of CPU time, and by the clock."""
    file = folder / "model.onnx"
    file.write_bytes(model.SerializeToString())
    asked = question(file, **more)
    with opened(asked) as model_open:
        return try_model(asked, model_open, Clock(*limits_s), batch=batch)


def one(
    nodes: Sequence[onnx.NodeProto],
    x: Sequence[int | str] = ("batch", 8),
    y: Sequence[int | str] = ("batch", 8),
    weights: Mapping[str, npt.ArrayLike] | None = None,
) -> onnx.ModelProto:
    return graph(nodes, {"x": (F, x)}, {"y": (F, y)}, weights)


# Whether batching changes an answer

COUNT = [node("Shape", ["x"], ["count"], start=0, end=1)]
HARMLESS = {
    "an mlp": mlp(),
    "text": identity(object),
    "halves": identity(np.float16),
    "whole numbers": identity(np.uint8),
    "a softmax over features": one([node("Softmax", ["x"], ["y"], axis=1)]),
    "a running sum over features": one([node("CumSum", ["x", "axis"], ["y"])], weights={"axis": np.int64(1)}),
    "a look-up": graph(
        [node("Gather", ["table", "x"], ["y"])],
        {"x": (I64, ["batch", 3])},
        {"y": (F, ["batch", 3, 4])},
        {"table": np.random.default_rng(0).random((7, 4), F)},
    ),
}
MIXING = {
    "sorted rows": (
        one([node("TopK", ["x", "k"], ["y", "places"], axis=0)], weights={"k": np.array([1])}),
        "output 'y' has shape [1, 8] for a batch of 2 rows",
    ),
    "a mean of rows": (
        one([node("ReduceMean", ["x"], ["m"], axes=[0]), node("Sub", ["x", "m"], ["y"])]),
        "output 'y' of a row is not in a batch of 2 rows what it is alone",
    ),
    "their number": (
        one([*COUNT, node("Cast", ["count"], ["n"], to=TensorProto.FLOAT), node("Div", ["x", "n"], ["y"])]),
        "output 'y' of a row is not in a batch of 2 rows what it is alone",
    ),
    "a running sum that hardly shows": (
        one(
            [node("CumSum", ["x", "axis"], ["c"]), node("Max", ["c", "most"], ["y"])],
            weights={"axis": np.int64(0), "most": F(1e6)},
        ),
        "a row's part of the tensor 'c' inside depends on the rows beside it",
    ),
    "a batch of 1": (
        one(
            [
                *COUNT,
                node("Reshape", ["x", "one"], ["r"]),
                node("Concat", ["count", "width"], ["s"], axis=0),
                node("Reshape", ["r", "s"], ["y"]),
            ],
            weights={"one": np.array([1, 8]), "width": np.array([8])},
        ),
        "a batch of 2 rows does not run (",
    ),
    "one scale for all": (
        one(
            [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])],
        ),
        "output 'y' of a row is not in a batch of 2 rows what it is alone; it is quantised dynamically "
        "(DynamicQuantizeLinear), so the whole batch shares a scale",
    ),
    "chance": (
        one([node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"], ["y"])]),
        "its answer to one request differs from run to run; it has random operators (RandomNormalLike)",
    ),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_rows_that_mind_their_own_business_may_share_a_batch(what: str, tmp_path: Path) -> None:
    found = tried(tmp_path, HARMLESS[what])
    assert (found.batch, found.batches, found.why, found.as_is) == (True, True, "", None)


@pytest.mark.parametrize("what", MIXING)
def test_rows_that_meet_may_not_and_a_clause_says_why(what: str, tmp_path: Path) -> None:
    model, why = MIXING[what]
    found = tried(tmp_path, model)
    assert found.batches is False
    assert found.why.startswith(why)
    assert found.as_is is not None


def test_outputs_that_cannot_be_split_are_told_apart(tmp_path: Path) -> None:
    assert not tried(tmp_path, MIXING["sorted rows"][0]).splits
    assert tried(tmp_path, MIXING["a mean of rows"][0]).splits


def test_no_larger_batch_is_tried_than_asked_for(tmp_path: Path) -> None:
    """It takes batches of three at most."""
    model = one(
        [
            *COUNT,
            node("Gather", ["table", "count"], ["nothing"]),
            node("Add", ["x", "nothing"], ["y"]),
        ],
        weights={"table": np.zeros(4, F)},
    )
    assert tried(tmp_path, model, rows_max=3).batches is True
    assert tried(tmp_path, model).why.startswith("a batch of 4 rows does not run (")


def test_what_runs_with_one_value_only_cannot_be_checked(tmp_path: Path) -> None:
    """Ids of a table with one row."""
    model = graph(
        [node("Gather", ["table", "x"], ["y"])],
        {"x": (I64, ["batch", 3])},
        {"y": (F, ["batch", 3, 4])},
        {"table": np.ones((1, 4), F)},
    )
    found = tried(tmp_path, model)
    assert found.batches is None
    assert "with one value of input 'x' only" in found.why
    assert found.as_batch is not None


@pytest.mark.parametrize("limits_s", [(-1.0, 60.0), (60.0, -1.0)])
def test_without_time_nothing_is_known_for_good(tmp_path: Path, limits_s: tuple[float, float]) -> None:
    found = tried(tmp_path, mlp(), limits_s=limits_s)
    assert (found.batches, found.lasting) == (None, False)
    assert "could not be tried within" in found.why


# Inputs that the model runs on


def dims(found: Trial, name: str = "x") -> tuple[int, ...]:
    assert found.as_batch is not None
    return found.as_batch[name].dims


def test_lengths_are_those_that_run(tmp_path: Path) -> None:
    by_64 = one(
        [node("Reshape", ["x", "s"], ["r"]), node("ReduceMax", ["r"], ["y"], axes=[1], keepdims=0)],
        x=("batch", "n"),
        y=("batch", 100),
        weights={"s": np.array([0, -1, 100])},
    )
    assert dims(tried(tmp_path, by_64)) == (1, 1000)


def test_dimensions_of_one_name_have_one_length(tmp_path: Path) -> None:
    model = graph(
        [node("Add", ["a", "b"], ["y"])],
        {"a": (F, ["batch", "time"]), "b": (F, ["batch", "time"])},
        {"y": (F, ["batch", "time"])},
    )
    found = tried(tmp_path, model)
    assert dims(found, "a") == dims(found, "b")


def test_an_image_has_the_size_of_one_and_text_is_short(tmp_path: Path) -> None:
    relu = [node("Relu", ["x"], ["y"])]
    image: Sequence[int | str] = ("batch", 3, "h", "w")
    assert dims(tried(tmp_path, one(relu, image, image))) == (1, 3, 224, 224)
    ids = graph([node("Identity", ["x"], ["y"])], {"x": (I64, ["batch", "n"])}, {"y": (I64, ["batch", "n"])})
    assert dims(tried(tmp_path, ids)) == (1, 32)


def test_integers_are_as_wide_as_they_may_be(tmp_path: Path) -> None:
    found = tried(tmp_path, HARMLESS["a look-up"])
    assert found.as_batch is not None
    assert (found.as_batch["x"].low, found.as_batch["x"].high) == (0, 2)
    free = tried(tmp_path, identity(np.int32))
    assert free.as_batch is not None
    assert (free.as_batch["x"].low, free.as_batch["x"].high) == (-1000, 1000)


def test_lengths_that_are_stated_come_first(tmp_path: Path) -> None:
    relu = [node("Relu", ["x"], ["y"])]
    model = one(relu, ("batch", "n", "m"), ("batch", "n", "m"))
    assert dims(tried(tmp_path, model, dims={"x": (5, -1)})) == (1, 5, 64)
    sample = Sample("s", {"x": (7, 9)})
    assert dims(tried(tmp_path, model, samples=(sample,))) == (1, 7, 9)


def test_a_sample_of_another_model_is_passed_over(tmp_path: Path) -> None:
    assert dims(tried(tmp_path, mlp(), samples=(Sample("s", {"z": (7,)}),))) == (1, 16)


def test_a_run_without_end_is_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "RUN_LIMIT_S", 0.1)
    go = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    go_on = helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])
    i = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    state, after = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 8]) for name in ("state", "after"))
    turn = [node("Identity", ["go"], ["go_on"]), node("Identity", ["state"], ["after"])]
    body = helper.make_graph(turn, "body", [i, go, state], [go_on, after])
    model = one([node("Loop", ["", "yes", "x"], ["y"], body=body)], weights={"yes": np.bool_(True)})
    found = tried(tmp_path, model, limits_s=(0.5, 60.0))
    assert (found.as_batch, found.batches, found.lasting) == (None, None, False)


# What is asked, and remembered


def test_the_question_is_the_same_before_and_after_completion(tmp_path: Path) -> None:
    file = tmp_path / "m" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(identity(F, ("n", 3)).SerializeToString())
    model = read_specs(file)
    bare = question_of({}, file, model, None)
    for more in (
        {"max_batch_size": 1 << 20, "input": [{"name": "x", "dims": ["-1", "3"]}]},
        {"max_batch_size": 0, "input": [{"name": "x", "dims": ["-1", "-1", "3"]}]},
    ):
        assert question_of(more, file, model, None) == bare
    stated = question_of({"input": [{"name": "x", "dims": ["5", "3"]}]}, file, model, None)
    assert stated.dims == {"x": (5, -1)}


def test_warm_up_names_shapes_and_data(tmp_path: Path) -> None:
    file = tmp_path / "m" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(identity(F, ("n", 3)).SerializeToString())
    inputs = {"x": {"data_type": "TYPE_FP32", "dims": ["6", "3"], "input_data_file": "raw"}}
    config = {"model_warmup": [{"name": "w", "batch_size": 1, "inputs": inputs}]}
    asked = question_of(config, file, read_specs(file), None)
    assert asked.samples == (Sample("w", {"x": (6, 3)}, {"x": str(tmp_path / "m" / "warmup" / "raw")}),)


# How far answers may be apart


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (np.ones(4, F), np.ones(4, F) + F(5e-4), True),
        (np.ones(4, F), np.ones(4, F) + F(5e-3), False),
        (np.array([1e-9, 1.0], F), np.array([5e-4, 1.0], F), True),
        (np.array([np.nan, np.inf, 1], F), np.array([np.nan, np.inf, 1], F), True),
        (np.array([np.nan, 1], F), np.array([0, 1], F), False),
        (np.array([np.inf, 1], F), np.array([-np.inf, 1], F), False),
        (np.ones(4, np.float64), np.ones(4) + 1e-5, False),
        (np.ones(4, np.float16), np.ones(4, np.float16) + np.float16(5e-3), True),
        (np.arange(4), np.arange(4), True),
        (np.arange(4), np.arange(4)[::-1], False),
        (np.arange(2000), np.where(np.arange(2000) == 7, 8, np.arange(2000)), True),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), False),
        (np.ones((2, 2), F), np.ones(4, F), False),
        (np.zeros(0, F), np.zeros(0, F), True),
    ],
)
def test_how_far_answers_may_be_apart(one: Any, other: Any, same: bool) -> None:
    assert close(one, other, SOLO_TOLERANCE, ODD_SHARE) is same


def test_fills_travel_as_they_are() -> None:
    trial = Trial({"x": Fill((1, 4), -3, 9, ("a",), "file", True)}, None, True, False, "because", False, False)
    assert msgspec.json.decode(msgspec.json.encode(trial), type=Trial) == trial
