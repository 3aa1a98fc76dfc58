"""ONNX Runtime on a fake GPU: what goes wrong, what it costs, and that nothing is left behind.

What it promises when all goes well is in tests/gpu/test_engine.py, for a real GPU too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.engines.gpu.device import Stream
from backend.engines.onnxruntime.cuda_engine import OnnxCudaEngine
from backend.engines.protocol import EngineOptions
from backend.errors import ConfigError, EngineError
from backend.tensors import BY_CONFIG, Array, TensorSpec
from tests.fakes.double import run
from tests.fakes.fake_gpu import COPY_NS_PER_BYTE, RUN_NS, FakeDevice
from tests.fakes.fake_session import FakeSession

FILE = Path("m/1/model.onnx")
FLOAT, INTEGER, TEXT = (BY_CONFIG[f"TYPE_{kind}"] for kind in ("FP32", "INT64", "STRING"))
Compute = Callable[[Mapping[str, Any]], Mapping[str, Array]]


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


class Sessions:
    """Opens one per lane: `x` of `shape` → `y` the same, by default."""

    def __init__(
        self, device: FakeDevice, *shape: int, compute: Compute | None = None, on_host: Sequence[str] = ()
    ) -> None:
        self.device, self.on_host = device, on_host
        self.inputs = [TensorSpec("x", FLOAT, shape or (-1, 4))]
        self.outputs = [TensorSpec("y", FLOAT, shape or (-1, 4))]
        self.compute: Compute = compute or (lambda inputs: {"y": inputs["x"]})
        self.opened: list[FakeSession] = []

    def __call__(self, stream: Stream) -> FakeSession:
        shapes = partial(self._shapes)
        args = (self.device, stream, self.inputs, self.outputs, shapes, self.compute)
        self.opened.append(FakeSession(*args, on_host=self.on_host))
        return self.opened[-1]

    @staticmethod
    def _shapes(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"y": inputs["x"]}


def opened(sessions: Sessions, *, lanes: int = 1, most: int = 8) -> OnnxCudaEngine:
    options = EngineOptions(sessions.device.index, lanes, most)
    return OnnxCudaEngine(sessions, sessions.device, FILE, options, version="1.0")


def rows(count: int, value: float = 1.0) -> Mapping[str, Any]:
    return {"x": np.full((count, 4), value, np.float32)}


def test_copies_and_kernels_are_timed_apart(device: FakeDevice) -> None:
    engine = opened(Sessions(device))
    ran = engine.run(0, {name: [array] for name, array in rows(8).items()}, ["y"])
    copied_ns = 8 * 4 * 4 * COPY_NS_PER_BYTE
    assert (ran.transfer_in_ns, ran.exec_ns, ran.transfer_out_ns) == (copied_ns, RUN_NS, copied_ns)


def test_a_lane_has_a_session_on_a_stream_of_its_own(device: FakeDevice) -> None:
    sessions = Sessions(device)
    engine = opened(sessions, lanes=3)
    assert len({session.stream for session in sessions.opened}) == 3
    before = [len(session.ran) for session in sessions.opened]
    run(engine, 1, rows(2), ["y"])
    assert [len(session.ran) for session in sessions.opened] == [before[0], before[1] + 1, before[2]]


def test_every_batch_size_has_run_on_zeros_before_a_request_comes(device: FakeDevice) -> None:
    sessions = Sessions(device)
    opened(sessions, lanes=2, most=3)
    for session in sessions.opened:
        assert [fed["x"].shape for fed in session.ran] == [(1, 4), (2, 4), (3, 4)]
        assert not any(fed["x"].any() for fed in session.ran)


def test_memory_is_taken_for_the_largest_batch_as_the_model_is_loaded(device: FakeDevice) -> None:
    engine = opened(Sessions(device))
    held = device.held
    for count in (8, 1, 8):
        run(engine, 0, rows(count), ["y"])
    assert device.held == held


def test_open_dimensions_take_memory_as_they_come(device: FakeDevice) -> None:
    sessions = Sessions(device, -1, -1)
    engine = opened(sessions)
    assert sessions.opened[0].ran == []
    for width in (3, 64, 1):
        x = np.arange(2 * width, dtype=np.float32).reshape(2, width)
        np.testing.assert_array_equal(run(engine, 0, {"x": x}, ["y"])[0], x)


def test_a_model_that_does_not_run_on_zeros_is_served(device: FakeDevice, caplog: pytest.LogCaptureFixture) -> None:
    sessions = Sessions(device)

    def open_session(stream: Stream) -> FakeSession:
        session = sessions(stream)
        session.refuses["run"] = EngineError("the model's run failed: divided by zero")
        return session

    with caplog.at_level(logging.WARNING, "isochrone"):
        engine = OnnxCudaEngine(open_session, device, FILE, EngineOptions(0, 1, 2), version="1.0")
    assert "a batch of zeros with inputs {'x': (1, 4)} does not run: the model's run failed: divided" in caplog.text
    np.testing.assert_array_equal(run(engine, 0, rows(2), ["y"])[0], rows(2)["x"])


def test_an_input_that_the_model_reads_on_the_host_stays_there(device: FakeDevice) -> None:
    sessions = Sessions(device, on_host=["n"], compute=lambda inputs: {"y": inputs["x"] * inputs["n"][0]})
    sessions.inputs.append(TensorSpec("n", INTEGER, (1,)))
    engine = OnnxCudaEngine(sessions, device, FILE, EngineOptions(0, 1, 8), version="1.0")
    held = device.held
    [y] = run(engine, 0, {**rows(8), "n": np.array([3])}, ["y"])
    assert y.tolist() == [[3.0] * 4] * 8
    assert device.held == held


@pytest.mark.parametrize("call", ["bind", "run"])
def test_a_batch_that_fails_fails_alone(call: str, device: FakeDevice) -> None:
    sessions = Sessions(device)
    engine = opened(sessions)
    run(engine, 0, rows(1), ["y"])
    sessions.opened[0].refuses[call] = EngineError("no")
    with pytest.raises(EngineError, match=r"^no$"):
        run(engine, 0, rows(8, 7.0), ["y"])
    assert all(queue.done == len(queue.ops) for queue in device._queues.values())
    np.testing.assert_array_equal(run(engine, 0, rows(2), ["y"])[0], rows(2)["x"])


def failing(inputs: Mapping[str, Any]) -> Mapping[str, Array]:
    """Reads where it may not if an input is 13, which shows when somebody waits."""
    if (inputs["x"] == 13).any():
        raise EngineError("GPU 0: running a batch failed: cudaErrorIllegalAddress")
    return {"y": inputs["x"]}


def test_a_lost_gpu_fails_the_model_clearly_and_at_once(device: FakeDevice) -> None:
    engine = opened(Sessions(device, compute=failing), lanes=2)
    with pytest.raises(EngineError, match=r"^GPU 0: running a batch failed: cudaErrorIllegalAddress$"):
        run(engine, 0, rows(1, 13.0), ["y"])
    for lane in (0, 1, 7):
        with pytest.raises(EngineError, match=r"^GPU 0 failed while this process used it \(.*IllegalAddress\) and is"):
            run(engine, lane, rows(1), ["y"])
    engine.close()


def test_a_gpu_that_is_lost_at_load_refuses_the_model(device: FakeDevice) -> None:
    def lost(_: Mapping[str, Array]) -> Mapping[str, Array]:
        raise EngineError("cudaErrorIllegalAddress")

    with pytest.raises(EngineError, match="cudaErrorIllegalAddress"):
        opened(Sessions(device, compute=lost))


def test_text_cannot_lie_on_a_gpu(device: FakeDevice) -> None:
    sessions = Sessions(device)
    sessions.outputs.append(TensorSpec("label", TEXT, (-1,)))
    with pytest.raises(ConfigError) as refused:
        opened(sessions)
    assert str(refused.value) == (
        "'label' of 'm/1/model.onnx' is TYPE_STRING, which cannot lie in a GPU's memory; use KIND_CPU"
    )
    assert device.held == {}


def test_a_session_that_cannot_be_opened_leaves_nothing_behind(device: FakeDevice) -> None:
    sessions = Sessions(device)

    def open_session(stream: Stream) -> FakeSession:
        if sessions.opened:
            raise ConfigError("ONNX Runtime cannot load it: out of memory")
        return sessions(stream)

    with pytest.raises(ConfigError, match="out of memory"):
        OnnxCudaEngine(open_session, device, FILE, EngineOptions(0, 2, 8), version="1.0")
    assert device.held == {}


@pytest.mark.parametrize("call", ["create_stream", "create_event"])
def test_a_lane_that_cannot_be_made_leaves_nothing_behind(call: str, device: FakeDevice) -> None:
    device.failures[call] = EngineError("no")
    with pytest.raises(EngineError, match="no"):
        opened(Sessions(device))
    assert device.held == {}


def test_one_more_lane_than_there_is_room_for(device: FakeDevice) -> None:
    sessions = Sessions(device)

    def open_session(stream: Stream) -> FakeSession:
        if sessions.opened:
            raise ConfigError("ONNX Runtime cannot load 'm': out of memory")
        return sessions(stream)

    engine = OnnxCudaEngine(open_session, device, FILE, EngineOptions(0, 1, 8), version="1.0")
    with pytest.raises(EngineError, match=r"^there is no room for lane 2: ONNX Runtime cannot load 'm': out of mem"):
        run(engine, 2, rows(1), ["y"])
    run(engine, 0, rows(1), ["y"])


def test_closing_gives_everything_back(device: FakeDevice) -> None:
    engine = opened(Sessions(device), lanes=2)
    run(engine, 0, rows(8), ["y"])
    run(engine, 5, rows(8), ["y"])
    engine.close()
    assert device.held == {}


def test_the_identity_names_what_times_depend_on(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(Sessions(device)).identity == "onnxruntime 1.0 CUDAExecutionProvider"
    monkeypatch.setenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "30")
    assert opened(Sessions(device)).identity == ("onnxruntime 1.0 CUDAExecutionProvider, 30 % of the multiprocessors")


def test_kernels_have_the_priority_of_the_models_class(device: FakeDevice) -> None:
    sessions, executing = Sessions(device), list[Stream]()

    def open_session(stream: Stream) -> FakeSession:
        executing.append(stream)
        return sessions(stream)

    engine = OnnxCudaEngine(open_session, device, FILE, EngineOptions(0, 2, 8, 3), version="1.0")
    assert {stream: device.priorities[stream] for stream in executing} == dict.fromkeys(executing, 3)
    assert {device.priorities[stream] for stream in device.streams if stream not in executing} == {None}
    engine.close()
