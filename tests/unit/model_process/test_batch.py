"""Requests become one batch of arrays, and each request gets its own rows back."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.engines.protocol import BatchResult
from backend.model_process.batch import Batch, feeds, split, wanted
from backend.model_process.request import Pending
from backend.scheduler.messages import BatchTimes, Finish, Launch
from backend.tensors import Array, joined

Rows = NDArray[np.float32]


def request(id_: int, rows: int, *names: str) -> Pending:
    """Its inputs are its number, over and over."""
    inputs: dict[str, Array] = {"x": np.full((rows, 2), id_, np.float32), "y": np.full((rows,), id_, np.int64)}
    return Pending(id_, None, inputs, names or ("out",), rows, 0, 0, None, 1)


def counted(rows: int) -> Rows:
    return np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)


def test_inputs_follow_each_other_in_the_order_of_the_requests() -> None:
    parts = feeds([request(1, 2), request(2, 1), request(3, 3)])
    batch = {name: joined(arrays) for name, arrays in parts.items()}
    assert batch["x"][:, 0].tolist() == [1, 1, 2, 3, 3, 3] == batch["y"].tolist()
    assert batch["x"].shape == (6, 2)


def test_a_request_alone_is_not_copied() -> None:
    alone = request(1, 2)
    assert {name: joined(arrays) is alone.inputs[name] for name, arrays in feeds([alone]).items()} == {
        "x": True,
        "y": True,
    }


def test_a_batch_counts_its_rows() -> None:
    assert Batch(1, 0, [request(1, 2), request(2, 3)], None, 0).rows == 5


def ended(*, planned: int = 2, moved: bool = True) -> Batch:
    """A batch of two requests that was planned with so many."""
    requests = [request(1, 2), request(2, 3)]
    launch = Launch(1, 7, 0, False, tuple(range(planned)), BatchTimes(10, 12, 15), "launch", 0)
    batch = Batch(7, 0, requests, launch, 0)
    outputs: list[Array] = [np.zeros((5, 8), np.float32)]
    batch.ran(BatchResult(outputs, 11, 300, 200) if moved else BatchResult(outputs, 11), feeds(requests))
    return batch


def test_a_batch_has_the_times_and_bytes_of_its_runs() -> None:
    """Each row has two floats and an integer of 8 bytes, and gives 8 floats."""
    assert ended().finish(failed=False) == Finish(7, 11, 300, 200, 5 * 16, 5 * 32)


def test_where_nothing_was_moved_there_are_no_bytes() -> None:
    assert ended(moved=False).finish(failed=False) == Finish(7, 11)


def test_a_batch_that_failed_or_shrank_tells_nothing() -> None:
    assert ended().finish(failed=True) == ended(planned=3).finish(failed=False) == Finish(7, None)


def test_every_output_that_somebody_wants_is_asked_for_once() -> None:
    assert wanted([request(1, 1, "b"), request(2, 1, "a", "b"), request(3, 1, "c")]) == ["b", "a", "c"]


def test_each_request_gets_its_own_rows_of_the_outputs_it_asked_for() -> None:
    requests = [request(1, 1, "a"), request(2, 2, "b", "a")]
    parts = split(requests, ["a", "b"], [counted(3), counted(3) + 100])
    assert [(name, rows.tolist()) for name, rows in parts[0]] == [("a", [[0, 1]])]
    assert [name for name, _ in parts[1]] == ["b", "a"]
    assert parts[1][1][1].tolist() == [[2, 3], [4, 5]]
    assert parts[1][0][1].tolist() == [[102, 103], [104, 105]]


def test_a_request_alone_gets_everything_whatever_its_shape() -> None:
    ((only,),) = split([request(1, 4)], ["out"], [counted(7)])
    assert only[1].shape == (7, 2)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (counted(4), "output 'out' has shape [4, 2] for a batch of 3 rows"),
        (np.float32(1).reshape(()), "output 'out' has shape [] for a batch of 3 rows"),
    ],
)
def test_an_output_that_has_not_one_row_per_row_cannot_be_split(output: Rows, sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        split([request(1, 1), request(2, 2)], ["out"], [output])
    assert str(refused.value) == sentence
