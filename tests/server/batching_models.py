"""Models whose rows meet in a batch or do not, by name: what batching would change the answers of, and what not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from tests.server.harness import graph, identity, mlp

F, I64 = np.float32, np.int64
node = helper.make_node


def with_constants(shape: Sequence[int], how: str) -> onnx.ModelProto:
    """x [batch, 16] → Reshape to a shape that is computed from constants, as exporters write it → y [batch, 16]."""
    parts = {
        "concat": [node("Concat", ["one", "width"], ["s"], axis=0)],
        "unsqueeze": [
            node("Unsqueeze", ["scalar_one", "zero"], ["a"]),
            node("Unsqueeze", ["scalar_width", "zero"], ["b"]),
            node("Concat", ["a", "b"], ["s"], axis=0),
        ],
        "nodes": [
            node("Constant", [], ["a"], value_ints=[shape[0]]),
            node("Constant", [], ["b"], value_ints=[shape[1]]),
            node("Concat", ["a", "b"], ["s"], axis=0),
        ],
        "cast": [node("Concat", ["one", "width"], ["c"], axis=0), node("Cast", ["c"], ["s"], to=TensorProto.INT64)],
        "slice": [node("Concat", ["one", "width", "width"], ["c"], axis=0), node("Slice", ["c", "zero", "two"], ["s"])],
    }
    constants: dict[str, npt.ArrayLike] = {
        "one": np.array([shape[0]]),
        "width": np.array([shape[1]]),
        "scalar_one": np.int64(shape[0]),
        "scalar_width": np.int64(shape[1]),
        "zero": np.array([0]),
        "two": np.array([2]),
    }
    used = {name for one in parts[how] for name in one.input}
    return graph(
        [*parts[how], node("Reshape", ["x", "s"], ["y"])],
        {"x": (F, ["batch", 16])},
        {"y": (F, ["batch", 16])},
        {name: value for name, value in constants.items() if name in used},
    )


TRANSPOSE = graph(
    [node("Transpose", ["x"], ["y"], perm=[1, 0, 2])],
    {"x": (F, ["batch", "time", 4])},
    {"y": (F, ["time", "batch", 4])},
)
DETECTIONS = graph(
    [
        node("Greater", ["x", "limit"], ["over"]),
        node("NonZero", ["over"], ["places"]),
        node("Transpose", ["places"], ["y"], perm=[1, 0]),
    ],
    {"x": (F, ["batch", 8])},
    {"y": (I64, ["num_dets", 2])},
    {"limit": F(0)},
)
SETS = graph(
    [node("ReduceMean", ["x"], ["mean"], axes=[0]), node("Sub", ["x", "mean"], ["y"])],
    {"x": (F, ["nodes", 4])},
    {"y": (F, ["nodes", 4])},
)
TABLE = graph(
    [node("Gather", ["table", "ids"], ["y"])],
    {"ids": (I64, ["batch", 3])},
    {"y": (F, ["batch", 3, 4])},
    {"table": np.random.default_rng(0).random((100, 4), np.float32)},
)
SIXTY_FOURS = graph(
    [node("Reshape", ["x", "shape"], ["rows"]), node("MatMul", ["rows", "w"], ["y"])],
    {"x": (F, ["batch", "n"])},
    {"y": (F, ["m", 8])},
    {"shape": np.array([-1, 64]), "w": np.random.default_rng(0).random((64, 8), np.float32)},
)
QUANTISED = graph(
    [
        node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ],
    {"x": (F, ["batch", 8])},
    {"y": (F, ["batch", 8])},
)
LABEL = graph([node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)], {"x": (F, ["n", 8])}, {"y": (I64, ["n"])})
BAKED = graph(
    [node("Reshape", ["x", "shape"], ["r"]), node("Relu", ["r"], ["y"])],
    {"x": (F, ["batch", 16])},
    {"y": (F, ["rows", "width"])},
    {"shape": np.array([1, -1])},
)
DISAGREES = graph(
    [
        node("Reshape", ["x", "shape"], ["r"]),
        node("Relu", ["r"], ["q"]),
        node("Shape", ["x"], ["batch"], start=0, end=1),
        node("Concat", ["batch", "width"], ["s"], axis=0),
        node("Reshape", ["q", "s"], ["y"]),
    ],
    {"x": (F, ["batch", 16])},
    {"y": (F, ["batch", 16])},
    {"shape": np.array([1, 16]), "width": np.array([16])},
)
DOUBLES = graph(
    [
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Greater", ["most", "limit"], ["over"]),
        node("Cast", ["over"], ["more"], to=TensorProto.INT64),
        node("Mul", ["more", "rows_only"], ["added"]),
        node("Add", ["added", "once"], ["times_each"]),
        node("Tile", ["x", "times_each"], ["y"]),
    ],
    {"x": (F, ["batch", 4])},
    {"y": (F, ["rows", "width"])},
    {"limit": F(1e6), "once": np.array([1, 1]), "rows_only": np.array([1, 0])},
)
SCALAR = graph([node("ReduceSum", ["x"], ["y"], keepdims=0)], {"x": (F, ["n", 4])}, {"y": (F, [])})


def without_rank(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, but its outputs say nothing of their shape."""
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model


BY_AN_INPUT = without_rank(
    graph([node("Reshape", ["x", "shape"], ["y"])], {"x": (F, ["n", 4]), "shape": (I64, ["k"])}, {"y": (F, [])})
)
SQUEEZED = without_rank(
    graph([node("Squeeze", ["x", "axes"], ["y"])], {"x": (F, [1, 3, 1]), "axes": (I64, ["k"])}, {"y": (F, [])})
)
BARE: Mapping[str, onnx.ModelProto] = {
    "transpose": TRANSPOSE,
    "detections": DETECTIONS,
    "sets": SETS,
    "table": TABLE,
    "sixty_fours": SIXTY_FOURS,
    "quantised": QUANTISED,
    "label": LABEL,
    "baked": BAKED,
    "disagrees": DISAGREES,
    "scalar": SCALAR,
    "by_an_input": BY_AN_INPUT,
    "squeezed": SQUEEZED,
    "plain": mlp(width=4),
    "text": identity(object),
    **{f"constants_{how}": with_constants((1, 16), how) for how in ("concat", "unsqueeze", "nodes", "cast", "slice")},
}
"""Served by one line of config.pbtxt."""
STATED: Mapping[str, tuple[onnx.ModelProto, str]] = {
    "sets_0": (SETS, "max_batch_size: 0"),
    "plain_0": (mlp(width=4), "max_batch_size: 0"),
    "transpose_8": (TRANSPOSE, "max_batch_size: 8"),
    "sets_8": (SETS, "max_batch_size: 8"),
    "doubles_8": (DOUBLES, "max_batch_size: 8"),
    "disagrees_0": (DISAGREES, "max_batch_size: 0"),
    "disagrees_1": (DISAGREES, "max_batch_size: 1"),
    "table_8": (TABLE, "max_batch_size: 8"),
    "by_dims": (BY_AN_INPUT, 'output [ { name: "y" dims: [ 2, -1 ] } ]'),
}
"""Of these config.pbtxt says one thing more."""
