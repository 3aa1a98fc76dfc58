"""The tensor types that both Triton and ONNX Runtime know, under each one's name. A table, nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Datatype:
    """One element type. config: in config.pbtxt; onnx: in ONNX Runtime; numpy: in memory."""

    config: str
    onnx: str
    numpy: np.dtype[np.generic]

    def size_bytes(self, shape: Sequence[int]) -> int:
        """Of a tensor without dynamic dimensions."""
        assert all(dimension >= 0 for dimension in shape), shape
        return math.prod(shape) * self.numpy.itemsize


DATATYPES = tuple(
    Datatype(config, onnx, np.dtype(numpy))
    for config, onnx, numpy in (
        ("TYPE_BOOL", "tensor(bool)", np.bool_),
        ("TYPE_UINT8", "tensor(uint8)", np.uint8),
        ("TYPE_UINT16", "tensor(uint16)", np.uint16),
        ("TYPE_UINT32", "tensor(uint32)", np.uint32),
        ("TYPE_UINT64", "tensor(uint64)", np.uint64),
        ("TYPE_INT8", "tensor(int8)", np.int8),
        ("TYPE_INT16", "tensor(int16)", np.int16),
        ("TYPE_INT32", "tensor(int32)", np.int32),
        ("TYPE_INT64", "tensor(int64)", np.int64),
        ("TYPE_FP16", "tensor(float16)", np.float16),
        ("TYPE_FP32", "tensor(float)", np.float32),
        ("TYPE_FP64", "tensor(double)", np.float64),
        ("TYPE_STRING", "tensor(string)", np.object_),
    )
)
"""TYPE_BF16 is missing: neither the Python stub nor ONNX Runtime's Python API can hand it over as an array."""

BY_ONNX = {d.onnx: d for d in DATATYPES}
BY_CONFIG = {d.config: d for d in DATATYPES}
