"""Model repositories for tests: folders as Triton wants them, and ONNX models of a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 8
OPSET = 17


def write_model(
    repository: Path,
    name: str,
    model: onnx.ModelProto | bytes,
    config: str,
    version: int = 1,
    filename: str = "model.onnx",
) -> Path:
    """Writes `<repository>/<name>/config.pbtxt` and the model file; returns the model's folder."""
    folder = repository / name
    (folder / str(version)).mkdir(parents=True, exist_ok=True)
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / str(version) / filename).write_bytes(content)
    (folder / "config.pbtxt").write_text(config)
    return folder


def mlp(width: int = 16, depth: int = 2, seed: int = 0, hidden: int | None = None) -> onnx.ModelProto:
    """`x` FP32 [batch, width] → `depth` layers of MatMul and Relu → `y` of the same shape.

    hidden: width of the layers between, for more work on small tensors; 1024 and depth 4 take about 1 ms.
    """
    random = np.random.default_rng(seed)
    widths = [width, *[hidden or width] * (depth - 1), width]
    nodes, weights = [], []
    value = "x"
    for layer in range(depth):
        shape = widths[layer], widths[layer + 1]
        weight = (random.standard_normal(shape) * np.sqrt((1 if hidden is None else 2) / shape[0])).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"h{layer}"]))
        value = "y" if layer == depth - 1 else f"a{layer}"
        nodes.append(helper.make_node("Relu", [f"h{layer}"], [value]))
    return _model(nodes, TensorProto.FLOAT, [width], weights)


def mlp_answer(model: onnx.ModelProto, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What `mlp` computes, by numpy."""
    for weight in model.graph.initializer:
        x = np.maximum(x @ numpy_helper.to_array(weight), 0)
    return x


def identity(dtype: npt.DTypeLike = np.float32, shape: tuple[int | str, ...] = (4,)) -> onnx.ModelProto:
    """`x` [batch, *shape] → `y`, equal to it; `object` as dtype stands for strings."""
    kind = np.dtype(dtype)
    element = TensorProto.STRING if kind == np.dtype(object) else helper.np_dtype_to_tensor_dtype(kind)
    return _model([helper.make_node("Identity", ["x"], ["y"])], element, list(shape), [])


def _model(
    nodes: list[onnx.NodeProto], element: int, shape: list[int | str], weights: list[onnx.TensorProto]
) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, element, ["batch", *shape]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "test", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


Tensor = tuple[npt.DTypeLike, Sequence[int | str]]
"""Element type (`object`: strings) and full shape."""


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    weights: Mapping[str, npt.ArrayLike] | None = None,
) -> onnx.ModelProto:
    """Any model. A weight that is an input as well is that input's default."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    body = helper.make_graph(list(nodes), "test", _infos(inputs), _infos(outputs), tensors)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


def batchmates(milliseconds: float) -> onnx.ModelProto:
    """`x` FP32 [batch, 1] → `y` [batch, batch]: every row gets the values of all rows that ran with it, in order.

    A run takes about `milliseconds` on a slow core, whatever the batch.
    """
    size = 192
    rounds = max(1, round(milliseconds * 3))  # 14 million operations each
    state: dict[str, Tensor] = {"in": (np.float32, [size, size])}
    infos = [("i", np.int64, []), ("go", np.bool_, []), ("in", np.float32, [size, size])]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["in", "turn"], ["out"]),
        ],
        "round",
        _infos({name: (dtype, shape) for name, dtype, shape in infos}),
        _infos({"go_on": (np.bool_, []), "out": state["in"]}),
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["turn", "nothing"], ["begin"]),
        helper.make_node("Loop", ["rounds", "yes", "begin"], ["end"], body=body),
        helper.make_node("ReduceMax", ["end"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["also_nothing"]),
        helper.make_node("Transpose", ["x"], ["row"], perm=[1, 0]),
        helper.make_node("Add", ["row", "also_nothing"], ["ids"]),
        helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "batch"], ["square"], axis=0),
        helper.make_node("Expand", ["ids", "square"], ["y"]),
    ]
    weights: dict[str, npt.ArrayLike] = {
        "turn": np.roll(np.eye(size, dtype=np.float32), 1, axis=0),
        "zero": np.float32(0),
        "rounds": np.int64(rounds),
        "yes": np.bool_(True),
    }
    return graph(nodes, {"x": (np.float32, ["batch", 1])}, {"y": (np.float32, ["batch", "mates"])}, weights)


def _infos(tensors: Mapping[str, Tensor]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, _element(dtype), shape) for name, (dtype, shape) in tensors.items()]


def _element(dtype: npt.DTypeLike) -> int:
    kind = np.dtype(dtype)
    return TensorProto.STRING if kind == np.dtype(object) else helper.np_dtype_to_tensor_dtype(kind)
