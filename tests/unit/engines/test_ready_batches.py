"""The batches that a GPU's lanes are made ready with."""

from __future__ import annotations

import pytest

from backend.engines.ready_batches import ready_batches, ready_sizes
from backend.tensors import BY_CONFIG, TensorSpec

FLOAT, INTEGER = BY_CONFIG["TYPE_FP32"], BY_CONFIG["TYPE_INT64"]


def test_zeros_of_each_size() -> None:
    inputs = [TensorSpec("x", FLOAT, (-1, 3)), TensorSpec("ids", INTEGER, (-1,))]
    found = list(ready_batches(inputs, 4))
    assert [(feeds["x"][0].shape, feeds["ids"][0].shape) for feeds in found] == [((n, 3), (n,)) for n in (1, 2, 3, 4)]
    assert {(feeds["x"][0].dtype.name, feeds["ids"][0].dtype.name) for feeds in found} == {("float32", "int64")}
    assert not any(part.any() for feeds in found for parts in feeds.values() for part in parts)


def test_a_model_that_does_not_batch() -> None:
    [feeds] = ready_batches([TensorSpec("x", FLOAT, (2, 3)), TensorSpec("y", FLOAT, (), optional=True)], 0)
    assert {name: part.shape for name, [part] in feeds.items()} == {"x": (2, 3)}


def test_shapes_that_the_batch_size_does_not_decide() -> None:
    assert list(ready_batches([TensorSpec("x", FLOAT, (-1, -1))], 8)) == []
    assert list(ready_batches([TensorSpec("x", FLOAT, (-1, 3))], 0)) == []


@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (0, [0]),
        (1, [1]),
        (5, [1, 2, 3, 4, 5]),
        (100, [1, 2, 4, 8, 16, 32, 64, 100]),
    ],
)
def test_sizes(most: int, sizes: list[int]) -> None:
    assert ready_sizes(most) == sizes
