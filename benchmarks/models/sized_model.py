"""A model of a wanted solo latency that is as heavy per row in a batch as alone, as models are on a busy device."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

_WIDTH = 384


def sized_model(depth: int) -> onnx.ModelProto:
    """`x` FP32 [batch, 384] → `y` of the same shape: `depth` matrix products over 64 positions each."""
    random = np.random.default_rng(0)
    nodes, value = [helper.make_node("Expand", ["x3", "positions"], ["a"])], "a"
    weights = [
        numpy_helper.from_array(np.array([1, 64, 1], np.int64), "positions"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    nodes.insert(0, helper.make_node("Unsqueeze", ["x", "axis"], ["x3"]))
    for layer in range(depth):
        weight = (random.standard_normal((_WIDTH, _WIDTH)) / np.sqrt(_WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"h{layer}"]))
        nodes.append(helper.make_node("Tanh", [f"h{layer}"], [f"t{layer}"]))
        value = f"t{layer}"
    nodes.append(helper.make_node("ReduceMean", [value], ["y"], axes=[1], keepdims=0))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", _WIDTH]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "overhead", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def depth_for(target_ms: float) -> int:
    """Number of layers that take `target_ms` on one core of this machine, alone."""
    probe = 16
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(sized_model(probe).SerializeToString(), options)
    feed = {"x": np.ones((1, _WIDTH), np.float32)}
    taken = [_timed(lambda: session.run(None, feed)) for _ in range(60)]
    return max(1, round(probe * target_ms / (statistics.median(taken[10:]) * 1e3)))


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
