"""The same model on a fake GPU, everywhere, and on a real one, where there is one with the engine that is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from backend.commands.build import BuildOptions, run_build
from backend.engines.onnxruntime.cuda_engine import OnnxCudaEngine
from backend.engines.onnxruntime.cuda_loading import open_onnx_on_gpu
from backend.engines.protocol import Engine, EngineOptions
from backend.engines.tensorrt.engine import TensorRtEngine
from backend.engines.tensorrt.loading import open_plan
from backend.errors import IsochroneError
from tests.fakes.double import BATCH_SIZES, OpenDouble, double_plan, double_session, write_double
from tests.fakes.fake_gpu import FakeDevice
from tests.fakes.fake_session import HostSession


@pytest.fixture(scope="session")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_double(tmp_path_factory.mktemp("double") / "model.onnx")


@pytest.fixture(scope="session")
def real_plan(onnx: Path) -> Path:
    """Built here by `isochrone build`; skips with the reason where it cannot be."""
    try:
        import backend.building.tensorrt_builder  # noqa: F401, PLC0415 - imports TensorRT
        from backend.engines.gpu.cuda_device import CudaDevice  # noqa: PLC0415 - imports CUDA

        CudaDevice(0)
    except IsochroneError as error:
        pytest.skip(f"no plan can be built and run here: {error}")
    sizes = ",".join(map(str, BATCH_SIZES))
    run_build(BuildOptions(onnx, batch_sizes=sizes, timing_cache=onnx.with_name("timing.cache")))
    return onnx.with_name("model.plan")


class Opener:
    """Opens the model of `double`; everything is closed after the test."""

    def __init__(self, request: pytest.FixtureRequest, closed: ExitStack) -> None:
        self._request, self._closed = request, closed

    def __call__(self, *, lanes: int = 2, max_batch_size: int = 8) -> Engine:
        engine, gpu = self._request.param
        open_one = {"tensorrt": self._plan, "onnxruntime": self._onnx}[engine]
        opened = open_one(gpu, EngineOptions(0, lanes, max_batch_size))
        self._closed.callback(opened.close)
        return opened

    def _plan(self, gpu: str, options: EngineOptions) -> Engine:
        if gpu == "real":
            plan = self._request.getfixturevalue("real_plan")
            return open_plan(plan, options)
        device = self._device()
        return TensorRtEngine(double_plan(device), device, Path("double.plan"), options)

    def _onnx(self, gpu: str, options: EngineOptions) -> Engine:
        onnx = self._request.getfixturevalue("onnx")
        if gpu == "real":
            try:
                return open_onnx_on_gpu(onnx, options)
            except IsochroneError as error:
                pytest.skip(f"ONNX Runtime does not run on a GPU here: {error}")
        device = self._device()
        session = partial(double_session, device) if gpu == "fake" else partial(HostSession, onnx, device)
        return OnnxCudaEngine(session, device, onnx, options, version="1.0")

    def _device(self) -> FakeDevice:
        device = FakeDevice()
        self._closed.callback(lambda: device.held and pytest.fail(f"not given back: {device.held}"))
        return device


PLANS = [("tensorrt", "fake"), ("tensorrt", "real")]
SESSIONS = [("onnxruntime", "fake"), ("onnxruntime", "real library on the host"), ("onnxruntime", "real")]


@pytest.fixture(params=PLANS + SESSIONS, ids=" ".join)
def open_double(request: pytest.FixtureRequest) -> Iterator[OpenDouble]:
    """Opens it with `lanes` and `max_batch_size`, in each engine."""
    with ExitStack() as closed:
        yield Opener(request, closed)


@pytest.fixture(params=PLANS, ids=" ".join)
def open_double_plan(request: pytest.FixtureRequest) -> Iterator[OpenDouble]:
    """The same in TensorRT only."""
    with ExitStack() as closed:
        yield Opener(request, closed)
