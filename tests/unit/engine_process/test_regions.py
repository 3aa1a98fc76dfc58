"""Tensors that one side packs are what the other side finds: every type, every shape, in memory that is used again."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from backend.engine_process.wire.messages import TensorPlace
from backend.engine_process.wire.regions import RegionReader, RegionWriter
from backend.tensors import Array, Datatype, Feeds, joined
from tests.fakes.open_files import open_files

TEXT = ["", "plain", "ä€😀", "nul\0inside", "x" * 70_000]


class RegionPair:
    """A writer and the reader at its other end."""

    def __init__(self) -> None:
        self.writer, self.reader = RegionWriter(), RegionReader()
        self.regions = 0

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        tensors, descriptor = self.writer.pack(feeds)
        if descriptor is not None:
            self.reader.map(descriptor)
            self.regions += 1
        return self.reader.arrays(tensors)


@pytest.fixture
def carry() -> RegionPair:
    return RegionPair()


def some(dtype: np.dtype[np.generic], shape: tuple[int, ...], seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    if dtype.hasobject:
        return np.array(random.choice(np.array(TEXT, np.object_), shape), np.object_)
    return random.integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8).view(dtype).reshape(shape)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [d.numpy for d in Datatype if d.numpy != np.bool_], ids=str)
def test_every_type_and_shape(carry: RegionPair, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    array = some(dtype, shape)
    found = carry({"x": [array]})["x"]
    np.testing.assert_array_equal(found, array, strict=True)


def test_truth_values(carry: RegionPair) -> None:
    array = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(carry({"x": [array]})["x"], array, strict=True)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.int8), np.dtype(object)], ids=str)
def test_parts_are_joined_along_the_first_dimension(carry: RegionPair, dtype: np.dtype[np.generic]) -> None:
    parts = [some(dtype, (rows, 3), seed=rows) for rows in (1, 4, 2)]
    np.testing.assert_array_equal(carry({"x": parts})["x"], joined(parts), strict=True)


def test_several_tensors_lie_apart_and_aligned(carry: RegionPair) -> None:
    arrays: dict[str, Array] = {
        "a": some(np.dtype(np.int8), (3,)),
        "text": np.array(TEXT, np.object_),
        "b": some(np.dtype(np.float64), (5, 2)),
        "bytes": np.array([b"", b"\xff\xfe"], np.object_),
    }
    tensors, _ = carry.writer.pack({name: [array] for name, array in arrays.items()})
    assert all(tensor.offset % 64 == 0 for tensor in tensors)
    ends = [tensor.offset + tensor.nbytes for tensor in tensors]
    assert all(end <= tensor.offset for end, tensor in zip(ends, tensors[1:], strict=False))
    found = RegionPair()({name: [array] for name, array in arrays.items()})
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.parametrize("strange", [lambda a: a.T, lambda a: a[::2, ::-1]], ids=["transposed", "strided"])
def test_an_array_in_another_order(carry: RegionPair, strange: Callable[[Array], Array]) -> None:
    array = strange(some(np.dtype(np.float32), (6, 4)))
    np.testing.assert_array_equal(carry({"x": [array]})["x"], array, strict=True)


def test_nothing_is_copied_on_arrival_and_the_region_is_used_again(carry: RegionPair) -> None:
    first = carry({"x": [np.full(8, 1, np.float32)]})["x"]
    second = carry({"x": [np.full(8, 2, np.float32)]})["x"]
    assert first.tolist() == second.tolist() == [2] * 8
    assert carry.regions == 1


def test_a_region_grows_where_it_must(carry: RegionPair) -> None:
    for size, regions in ((10, 1), (60_000, 1), (100_000, 2), (100_000, 2), (10, 2), (1_000_000, 3)):
        array = some(np.dtype(np.int8), (size,), seed=size)
        np.testing.assert_array_equal(carry({"x": [array]})["x"], array, strict=True)
        assert carry.regions == regions


def test_what_cannot_be_packed_costs_nothing(carry: RegionPair) -> None:
    ragged = [np.zeros((1, 100_000), np.int8), np.zeros((1, 3), np.int8)]
    before = open_files(os.getpid())
    with pytest.raises(ValueError, match="dimension"):
        carry.writer.pack({"x": ragged})
    assert open_files(os.getpid()) == before
    np.testing.assert_array_equal(carry({"x": [np.arange(9)]})["x"], np.arange(9))


@pytest.mark.parametrize(
    "tensor",
    [
        TensorPlace("x", "<f4", (4,), 1 << 16, 16),
        TensorPlace("x", "<f4", (1 << 20,), 0, 1 << 22),
        TensorPlace("x", "nonsense", (4,), 0, 16),
        TensorPlace("x", "|O", (2,), 0, 1 << 20),
        TensorPlace("x", "|O", (2,), 0, 4),
    ],
    ids=["beyond", "too_large", "no_type", "text_too_large", "no_text"],
)
def test_a_place_that_cannot_be(carry: RegionPair, tensor: TensorPlace) -> None:
    carry({"x": [np.zeros(4, np.float32)]})
    with pytest.raises(ValueError, match="place in shared memory"):
        carry.reader.arrays([tensor])


@pytest.mark.parametrize("dtype", ["O", "O8", "|O8", "object", "i4,O", "V8", "M8[ns]", "U4", "", "x" * 200])
def test_a_type_whose_bytes_would_be_pointers_or_records(carry: RegionPair, dtype: str) -> None:
    carry({"x": [some(np.dtype(np.float64), (3,))]})
    with pytest.raises(ValueError, match="there are no tensors of"):
        carry.reader.arrays((TensorPlace("x", dtype, (3,), 0, 24),))


@pytest.mark.parametrize("offset", [-1, 1, 1 << 16, (1 << 63) - 1, 1 << 64])
def test_a_tensor_that_is_not_within_the_region(carry: RegionPair, offset: int) -> None:
    carry({"x": [some(np.dtype(np.float64), (1 << 13,))]})  # which fill it
    with pytest.raises(ValueError, match="a tensor's place in shared memory cannot be"):
        carry.reader.arrays((TensorPlace("x", "<f8", (1 << 13,), offset, 1 << 16),))


def test_text_that_is_nested_without_end(carry: RegionPair) -> None:
    deep = b"\x91" * 5000
    carry({"x": [np.frombuffer(deep, np.uint8)]})
    with pytest.raises(ValueError, match="a tensor's place in shared memory cannot be"):
        carry.reader.arrays((TensorPlace("x", "|O", (1,), 0, len(deep)),))


def test_a_reader_without_a_region() -> None:
    with pytest.raises(ValueError, match="there is no region"):
        RegionReader().arrays([TensorPlace("x", "<f4", (4,), 0, 16)])
