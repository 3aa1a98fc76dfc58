"""What the engines on a GPU promise, on a fake GPU and on a real one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from backend.errors import ConfigError, EngineError
from tests.fakes.double import WIDTH, OpenDouble, run

Batch = npt.NDArray[np.float32]


def batch(rows: int, first: int = 0) -> Batch:
    return np.arange(first, first + rows * WIDTH, dtype=np.float32).reshape(rows, WIDTH)


def test_parts_of_a_batch_come_together(open_double: OpenDouble) -> None:
    ran = open_double().run(0, {"x": [batch(1), batch(2, 50)]}, ["y"])
    np.testing.assert_array_equal(ran.outputs[0], 2 * np.concatenate([batch(1), batch(2, 50)]))
    assert ran.exec_ns > 0


def test_what_the_model_takes_and_gives(open_double: OpenDouble) -> None:
    engine = open_double()
    assert [(t.name, t.datatype.config, t.shape) for t in engine.inputs] == [("x", "TYPE_FP32", (-1, WIDTH))]
    assert {(t.name, t.shape) for t in engine.outputs} == {("y", (-1, WIDTH)), ("total", (-1,))}
    assert engine.identity.split()[0] in ("tensorrt", "onnxruntime")


@pytest.mark.parametrize("rows", range(1, 9))
def test_each_batch_size(rows: int, open_double: OpenDouble) -> None:
    engine = open_double()
    for lane in (0, 1):
        y, total = run(engine, lane, {"x": batch(rows, lane)}, ["y", "total"])
        np.testing.assert_array_equal(y, 2 * batch(rows, lane))
        np.testing.assert_array_equal(total, 2 * batch(rows, lane).sum(axis=1))


def test_a_batch_does_not_change_the_answers_of_the_one_before(open_double: OpenDouble) -> None:
    engine = open_double()
    [first] = run(engine, 0, {"x": batch(8)}, ["y"])
    run(engine, 0, {"x": batch(8, first=100)}, ["y"])
    np.testing.assert_array_equal(first, 2 * batch(8))


def test_sizes_and_profiles_in_any_order(open_double: OpenDouble) -> None:
    engine = open_double()
    for rows in (8, 1, 4, 8, 3, 2, 1, 5):
        np.testing.assert_array_equal(run(engine, 0, {"x": batch(rows, rows)}, ["y"])[0], 2 * batch(rows, rows))


def test_outputs_as_asked_for_and_only_those(open_double: OpenDouble) -> None:
    engine = open_double()
    [total] = run(engine, 0, {"x": batch(2)}, ["total"])
    assert total.tolist() == [12, 44]
    total, y = run(engine, 0, {"x": batch(2)}, ["total", "y"])
    assert (total.shape, y.shape) == ((2,), (2, WIDTH))


def test_inputs_that_do_not_lie_in_one_piece(open_double: OpenDouble) -> None:
    engine = open_double()
    wide = np.arange(32, dtype=np.float32).reshape(4, 8)
    np.testing.assert_array_equal(run(engine, 0, {"x": wide[:, ::2]}, ["y"])[0], 2 * wide[:, ::2])


def test_lanes_at_the_same_time(open_double: OpenDouble) -> None:
    engine = open_double(lanes=2)

    def work(lane: int) -> bool:
        return all(
            np.array_equal(run(engine, lane, {"x": batch(rows, lane)}, ["y"])[0], 2 * batch(rows, lane))
            for rows in [1, 2, 3, 8] * 10
        )

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(work, [0, 1])) == [True, True]


def test_a_lane_that_the_model_was_not_told_of(open_double: OpenDouble) -> None:
    engine = open_double(lanes=1)
    np.testing.assert_array_equal(run(engine, 3, {"x": batch(2)}, ["y"])[0], 2 * batch(2))


def test_copies_and_execution_are_timed(open_double: OpenDouble) -> None:
    result = open_double().run(0, {"x": [batch(8)]}, ["y"])
    assert result.exec_ns > 0
    assert min(result.transfer_in_ns, result.transfer_out_ns) >= 0


def test_a_shape_outside_all_profiles_fails_that_batch_alone(open_double_plan: OpenDouble) -> None:
    engine = open_double_plan()
    with pytest.raises(
        EngineError,
        match=r"^input 'x' has shape \[2, 5\], which no profile of the plan takes; they take "
        r"\[1, 4\] to \[1, 4\]; \[2, 4\] to \[2, 4\]; \[3, 4\] to \[4, 4\]; \[5, 4\] to \[8, 4\]$",
    ):
        run(engine, 0, {"x": np.zeros((2, 5), np.float32)}, ["y"])
    np.testing.assert_array_equal(run(engine, 0, {"x": batch(2)}, ["y"])[0], 2 * batch(2))


def test_profiles_for_larger_batches_than_are_served(open_double: OpenDouble) -> None:
    engine = open_double(max_batch_size=2)
    for rows in (1, 2):
        np.testing.assert_array_equal(run(engine, 0, {"x": batch(rows)}, ["y"])[0], 2 * batch(rows))


def test_more_rows_than_the_profiles_take(open_double_plan: OpenDouble) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^max_batch_size is 9, but no profile of '.*' takes a batch of 9: they take 1, 2, 3 to 4, 5 to 8;",
    ):
        open_double_plan(max_batch_size=9)
