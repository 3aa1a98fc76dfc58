"""The same plan on a fake GPU, everywhere, and on a real one, where there is one with TensorRT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from backend.building.command import BuildOptions, run_build
from backend.engines.tensorrt import TensorRtEngine
from backend.engines.tensorrt_loading import open_plan
from backend.errors import IsochroneError
from tests.gpu.double import BATCH_SIZES, WIDTH, Open, double_plan
from tests.gpu.fake_gpu import FakeDevice
from tests.unit.graphs import write_model


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
                engine = open_plan(plan, device_id=0, lanes=lanes, max_batch_size=max_batch_size)
            else:
                device = FakeDevice()
                closed.callback(lambda: device.held and pytest.fail(f"not given back: {device.held}"))
                plan, file = double_plan(device), Path("double.plan")
                engine = TensorRtEngine(plan, device, file, lanes=lanes, max_batch_size=max_batch_size)
            closed.callback(engine.close)
            return engine

        yield open_engine
