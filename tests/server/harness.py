"""Model repositories for tests: folders as Triton wants them, and ONNX models of a few lines."""

from __future__ import annotations

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


def mlp(width: int = 16, depth: int = 2, seed: int = 0) -> onnx.ModelProto:
    """`x` FP32 [batch, width] → `depth` layers of MatMul and Relu → `y` of the same shape."""
    random = np.random.default_rng(seed)
    nodes, weights = [], []
    value = "x"
    for layer in range(depth):
        weight = (random.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
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
