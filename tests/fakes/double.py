"""A model that doubles, as the tests of every engine on every GPU know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from backend.engines.gpu.device import Shape, Stream
from backend.engines.protocol import Engine
from backend.engines.tensorrt.plan_runtime import OptimizationProfile
from backend.tensors import BY_CONFIG, Array, TensorSpec
from tests.fakes.fake_gpu import FakeDevice, FakePlan, tensor
from tests.fakes.fake_session import FakeSession
from tests.fakes.graphs import write_model

BATCH_SIZES = (1, 2, 4, 8)
WIDTH = 4


OpenDouble = Callable[..., Engine]


def run(engine: Engine, lane: int, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    """A batch whose inputs are of one part each."""
    return engine.run(lane, {name: [array] for name, array in feeds.items()}, outputs).outputs


def _shapes(inputs: Mapping[str, Shape]) -> Mapping[str, Shape]:
    return {"y": inputs["x"], "total": inputs["x"][:1]}


def _compute(inputs: Mapping[str, Any]) -> Mapping[str, Array]:
    doubled = inputs["x"] + inputs["x"]
    return {"y": doubled, "total": doubled.sum(axis=1)}


def write_double(path: Path) -> Path:
    """`x` FP32 [batch, 4] → `y` = x + x and `total` [batch], its rows' sums."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["y"]),
        helper.make_node("ReduceSum", ["y", "axes"], ["total"], keepdims=0),
    ]
    axes = np.array([1], np.int64)
    outputs: dict[str, Sequence[int | str | None] | None] = {"y": ["batch", WIDTH], "total": ["batch"]}
    return write_model(path, nodes, {"x": ["batch", WIDTH]}, outputs, {"axes": axes})


def double_session(device: FakeDevice, stream: Stream) -> FakeSession:
    """The same in ONNX Runtime."""
    kind = BY_CONFIG["TYPE_FP32"]
    outputs = [TensorSpec("y", kind, (-1, WIDTH)), TensorSpec("total", kind, (-1,))]
    return FakeSession(device, stream, [TensorSpec("x", kind, (-1, WIDTH))], outputs, _shapes, _compute)


def double_plan(device: FakeDevice) -> FakePlan:
    """The same in TensorRT, with profiles as `isochrone build` has them."""
    tensors = [
        tensor("x", (-1, WIDTH), is_input=True),
        tensor("y", (-1, WIDTH), is_input=False),
        tensor("total", (-1,), is_input=False),
    ]
    below = (0, *BATCH_SIZES)
    profiles = [
        OptimizationProfile({"x": (low + 1, WIDTH)}, {"x": (high, WIDTH)}, {"x": (high, WIDTH)})
        for low, high in zip(below, BATCH_SIZES, strict=False)
    ]
    return FakePlan(device, tensors, profiles, _shapes, _compute)
