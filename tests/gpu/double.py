"""A plan that doubles, as the tests of both GPUs know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backend.engines.gpu_runtime import Shape
from backend.engines.plan_runtime import Profile
from backend.engines.protocol import Array
from backend.engines.tensorrt import TensorRtEngine
from tests.gpu.fake_gpu import FakeDevice, FakePlan, tensor

BATCH_SIZES = (1, 2, 4, 8)
WIDTH = 4

Open = Callable[..., TensorRtEngine]


def run(engine: TensorRtEngine, lane: int, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    """A batch whose inputs are of one part each."""
    return engine.run(lane, {name: [array] for name, array in feeds.items()}, outputs).outputs


def double_plan(device: FakeDevice) -> FakePlan:
    """`x` FP32 [batch, 4] → `y` = x + x and `total` [batch], its rows' sums; profiles as `isochrone build` has them."""

    def shapes(inputs: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"y": inputs["x"], "total": inputs["x"][:1]}

    def compute(inputs: Mapping[str, Any]) -> Mapping[str, Array]:
        doubled = inputs["x"] + inputs["x"]
        return {"y": doubled, "total": doubled.sum(axis=1)}

    tensors = [
        tensor("x", (-1, WIDTH), is_input=True),
        tensor("y", (-1, WIDTH), is_input=False),
        tensor("total", (-1,), is_input=False),
    ]
    below = (0, *BATCH_SIZES)
    profiles = [
        Profile({"x": (low + 1, WIDTH)}, {"x": (high, WIDTH)}) for low, high in zip(below, BATCH_SIZES, strict=False)
    ]
    return FakePlan(device, tensors, profiles, shapes, compute)
