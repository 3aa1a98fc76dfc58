"""Tensors as all processes of the backend handle them: element types, declarations, the parts of a batch's input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

Feeds = Mapping[str, Sequence[Array]]
"""Each input's parts, one per request, to be joined along the first dimension: an engine joins them straight into the
memory where it needs the whole, which spares a copy."""


class Datatype(Enum):
    """An element type that Triton and ONNX Runtime both know. config: name in config.pbtxt; onnx: in ONNX Runtime.

    TYPE_BF16 is missing: neither the Python stub nor ONNX Runtime's Python API can hand it over as an array.
    """

    BOOL = ("TYPE_BOOL", "tensor(bool)", np.bool_)
    UINT8 = ("TYPE_UINT8", "tensor(uint8)", np.uint8)
    UINT16 = ("TYPE_UINT16", "tensor(uint16)", np.uint16)
    UINT32 = ("TYPE_UINT32", "tensor(uint32)", np.uint32)
    UINT64 = ("TYPE_UINT64", "tensor(uint64)", np.uint64)
    INT8 = ("TYPE_INT8", "tensor(int8)", np.int8)
    INT16 = ("TYPE_INT16", "tensor(int16)", np.int16)
    INT32 = ("TYPE_INT32", "tensor(int32)", np.int32)
    INT64 = ("TYPE_INT64", "tensor(int64)", np.int64)
    FP16 = ("TYPE_FP16", "tensor(float16)", np.float16)
    FP32 = ("TYPE_FP32", "tensor(float)", np.float32)
    FP64 = ("TYPE_FP64", "tensor(double)", np.float64)
    STRING = ("TYPE_STRING", "tensor(string)", np.object_)

    config: str
    onnx: str
    numpy: np.dtype[np.generic]

    def __new__(cls, config: str, onnx: str, numpy: type[np.generic]) -> Datatype:
        made = object.__new__(cls)
        made._value_ = made.config = config  # as messages and files hold it
        made.onnx, made.numpy = onnx, np.dtype(numpy)
        return made

    def size_bytes(self, shape: Sequence[int]) -> int:
        """Size of a tensor without dynamic dimensions."""
        assert all(dimension >= 0 for dimension in shape), shape
        return math.prod(shape) * self.numpy.itemsize


BY_ONNX = {d.onnx: d for d in Datatype}
BY_CONFIG = {d.config: d for d in Datatype}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output as the model file declares it; −1 stands for a dynamic dimension.

    optional: an input that the model has a default for. ranked: False where the file leaves even the number of
    dimensions open; the shape is () then. dim_names: of each dimension, "" where it has none; dimensions of one name
    have one length, and a name of digits is a length that the file fixes although it is served as dynamic.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    optional: bool = False
    ranked: bool = True
    dim_names: tuple[str, ...] = field(default=(), compare=False)


def joined(parts: Sequence[Array]) -> Array:
    """One array of an input's parts; a single part is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def joined_shape(parts: Sequence[Array]) -> tuple[int, ...]:
    """Shape of `joined`."""
    first = parts[0].shape
    return first if len(parts) == 1 else (sum(part.shape[0] for part in parts), *first[1:])


def join_into(place: Array, parts: Sequence[Array]) -> None:
    """Write `joined` to `place`, which has its dtype and shape: each part is copied once."""
    if len(parts) == 1:
        np.copyto(place, parts[0])
    else:
        np.concatenate(parts, out=place)
