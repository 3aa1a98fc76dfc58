"""ONNX files of a few lines for the profiler's tests, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from profiler.peaks import Peaks

Array = NDArray[Any]
Shape = Sequence[int | str | None]

MS = 1_000_000
PEAKS = Peaks(operations_per_s=1e11, cache_bytes_per_s=5e10, dram_bytes_per_s=1e10, cache_share_bytes=50 << 20)


def write_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Shape],
    outputs: dict[str, Shape | None],
    weights: dict[str, Array] | None = None,
    dtypes: dict[str, int] | None = None,
) -> Path:
    def values(shapes: dict[str, Shape] | dict[str, Shape | None]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, (dtypes or {}).get(name, TensorProto.FLOAT), shape)
            for name, shape in shapes.items()
        ]

    constants = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    made = helper.make_graph(nodes, "test", values(inputs), values(outputs), constants)
    domains = sorted({node.domain for node in nodes} | {""})
    opsets = [helper.make_opsetid(domain, 17 if not domain else 1) for domain in domains]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), path)
    return path


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def write_mlp(folder: Path) -> Path:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    weights = {"w": ones(10, 16), "b": ones(10)}
    return write_model(folder / "mlp.onnx", nodes, {"x": ["batch", 16]}, {"y": ["batch", 10]}, weights)
