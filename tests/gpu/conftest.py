"""The same plan on a fake GPU, everywhere, and on a real one, where there is one with TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from backend.building.command import BuildOptions, run_build
from backend.engines.plan_runtime import Profile, Shape
from backend.engines.protocol import Array
from backend.engines.tensorrt import TensorRtEngine
from backend.engines.tensorrt_loading import open_plan
from backend.errors import IsochroneError
from tests.gpu.fake_gpu import FakeDevice, FakePlan, tensor
from tests.unit.graphs import write_model

BATCH_SIZES = (1, 2, 4, 8)
WIDTH = 4

Open = Callable[..., TensorRtEngine]


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


@pytest.fixture(scope="session")
def real_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built here by `isochrone build`; skips with the reason where it cannot be."""
    folder = tmp_path_factory.mktemp("plans")
    nodes = [
        helper.make_node("Add", ["x", "x"], ["y"]),
        helper.make_node("ReduceSum", ["y", "axes"], ["total"], keepdims=0),
    ]
    axes = np.array([1], np.int64)
    outputs: dict[str, Sequence[int | str | None] | None] = {"y": ["batch", WIDTH], "total": ["batch"]}
    onnx = write_model(folder / "model.onnx", nodes, {"x": ["batch", WIDTH]}, outputs, {"axes": axes})
    try:
        import backend.building.tensorrt_builder  # noqa: F401, PLC0415 - imports TensorRT
        from backend.engines.cuda_device import CudaDevice  # noqa: PLC0415 - imports CUDA

        CudaDevice(0)
    except IsochroneError as error:
        pytest.skip(f"no plan can be built and run here: {error}")
    sizes = ",".join(map(str, BATCH_SIZES))
    run_build(BuildOptions(onnx, batch_sizes=sizes, timing_cache=folder / "timing.cache"))
    return folder / "model.plan"


@pytest.fixture(params=["fake", "real"])
def open_double(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens the plan of `double_plan` with `lanes` and `max_batch_size`; everything is closed after the test."""
    with ExitStack() as closed:

        def open_engine(*, lanes: int = 2, max_batch_size: int = 8) -> TensorRtEngine:
            if request.param == "real":
                plan = request.getfixturevalue("real_plan")
                engine = open_plan(plan, device_id=0, lanes=lanes, max_batch_size=max_batch_size, mps_percent=None)
            else:
                device = FakeDevice()
                closed.callback(lambda: device.held and pytest.fail(f"not given back: {device.held}"))
                plan, file = double_plan(device), Path("double.plan")
                engine = TensorRtEngine(plan, device, file, lanes=lanes, max_batch_size=max_batch_size)
            closed.callback(engine.close)
            return engine

        yield open_engine
