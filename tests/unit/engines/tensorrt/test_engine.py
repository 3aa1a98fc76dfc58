"""The TensorRT engine on a fake GPU: what goes wrong, what it costs, and that nothing is left behind.

What it promises when all goes well is in tests/gpu/test_engine.py, for a real GPU too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.engines.gpu.device import Shape
from backend.engines.protocol import EngineOptions
from backend.engines.tensorrt.engine import TensorRtEngine
from backend.engines.tensorrt.plan_runtime import OptimizationProfile, PlanTensor
from backend.errors import ConfigError, EngineError
from backend.tensors import Array
from tests.fakes.double import double_plan, run
from tests.fakes.fake_gpu import COPY_NS_PER_BYTE, RUN_NS, FakeDevice, FakePlan, tensor

FILE = Path("m/1/model.plan")
MIB = 1 << 20


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


def opened(
    device: FakeDevice, plan: FakePlan | None = None, *, lanes: int = 2, most: int = 8, priority: int = 1
) -> TensorRtEngine:
    options = EngineOptions(device.index, lanes, most, priority)
    return TensorRtEngine(plan or double_plan(device), device, FILE, options)


def rows(count: int) -> Mapping[str, Any]:
    return {"x": np.ones((count, 4), np.float32)}


def image_plan(device: FakeDevice, shape: Shape, largest: Shape, **options: Any) -> FakePlan:
    """`x` of any shape → `y` the same."""
    same: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda inputs: {"y": inputs["x"]}  # noqa: E731
    tensors = [tensor("x", shape, is_input=True), tensor("y", shape, is_input=False)]
    smallest = tuple(1 if own == -1 else own for own in shape)
    return FakePlan(
        device, tensors, [OptimizationProfile({"x": smallest}, {"x": largest}, {"x": largest})], same, same, **options
    )


# Times


def test_copies_and_kernels_are_timed_apart(device: FakeDevice) -> None:
    engine = opened(device)
    ran = engine.run(0, {name: [array] for name, array in rows(8).items()}, ["y", "total"])
    x_bytes = y_bytes = 8 * 4 * 4
    total_bytes = 8 * 4
    assert (ran.transfer_in_ns, ran.exec_ns) == (x_bytes * COPY_NS_PER_BYTE, RUN_NS)
    assert ran.transfer_out_ns == (y_bytes + total_bytes) * COPY_NS_PER_BYTE


def test_a_batch_that_cannot_be_launched_fails_alone(device: FakeDevice) -> None:
    engine = opened(device)
    device.failures["launch"] = EngineError("no")
    with pytest.raises(EngineError, match="no"):
        run(engine, 0, rows(8), ["y"])
    np.testing.assert_array_equal(run(engine, 0, rows(2), ["y"])[0], 2 * rows(2)["x"])


# CUDA graphs


def test_every_batch_size_has_a_graph(device: FakeDevice) -> None:
    engine = opened(device, lanes=2)
    assert device.held["graphs"] == 2 * 8
    run(engine, 1, rows(3), ["y"])
    assert device.launched == 1
    assert engine.identity == "tensorrt 10.0, with CUDA graphs"


def test_no_graphs_where_shapes_are_open_besides_the_batch(device: FakeDevice) -> None:
    engine = opened(device, image_plan(device, (-1, -1), (8, 16)))
    for width in (3, 16):
        x = np.arange(2 * width, dtype=np.float32).reshape(2, width)
        np.testing.assert_array_equal(run(engine, 0, {"x": x}, ["y"])[0], x)
    assert device.launched == 0
    assert engine.identity == "tensorrt 10.0, without CUDA graphs"


def test_the_runs_before_a_capture_read_zeros_not_what_lay_in_memory(device: FakeDevice) -> None:
    seen: list[Any] = []

    def compute(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        seen.append(inputs["x"].copy())
        return {"y": inputs["x"]}

    plan = image_plan(device, (-1, 4), (8, 4))
    plan.compute = compute
    opened(device, plan, lanes=1)
    assert [x.shape for x in seen] == [(size, 4) for size in range(1, 9)]
    assert not any(x.any() for x in seen)


@pytest.mark.parametrize("call", ["begin_capture", "end_capture"])
def test_a_plan_that_cannot_be_captured_runs_without(
    call: str, device: FakeDevice, caplog: pytest.LogCaptureFixture
) -> None:
    device.failures[call] = EngineError("a loop cannot be captured")
    with caplog.at_level(logging.WARNING, "isochrone"):
        engine = opened(device, lanes=1)
    assert "no CUDA graph for a batch with inputs {'x': (1, 4)}: a loop cannot be captured" in caplog.text
    np.testing.assert_array_equal(run(engine, 0, rows(2), ["y"])[0], 2 * rows(2)["x"])
    assert device.launched == 0


def test_a_run_that_fails_in_a_capture_ends_the_capture(device: FakeDevice) -> None:
    plan = double_plan(device)
    enqueued = iter([None, EngineError("not in a graph")])  # runs once before it is captured

    def refused(call: str) -> None:
        if call == "enqueue" and (error := next(enqueued, None)):
            raise error

    plan.refused = refused  # type: ignore[method-assign]
    engine = opened(device, plan, lanes=1)
    assert "graphs" not in device.held
    np.testing.assert_array_equal(run(engine, 0, rows(1), ["y"])[0], 2 * rows(1)["x"])


# Before TensorRT 10 a profile has one context


def test_each_lane_loads_a_plan_whose_profiles_are_for_one_context(device: FakeDevice) -> None:
    plan = image_plan(device, (-1, 4), (8, 4), shares_profiles=False)
    engine = opened(device, plan, lanes=3)
    assert len(plan.copies) == 2
    for lane in (0, 1, 2, 5):
        np.testing.assert_array_equal(run(engine, lane, rows(lane + 1), ["y"])[0], rows(lane + 1)["x"])
    assert (device.launched, engine.identity) == (0, "tensorrt 10.0, without CUDA graphs")
    engine.close()
    assert [copy.closed for copy in (plan, *plan.copies)] == [True] * 4
    assert device.held == {}


def test_a_lane_that_cannot_be_had_leaves_no_copy_of_the_plan(device: FakeDevice) -> None:
    plan = image_plan(device, (-1, 4), (8, 4), shares_profiles=False)
    engine = opened(device, plan, lanes=1)
    device.failures["create_stream"] = EngineError("no")
    with pytest.raises(EngineError, match=r"^there is no room for lane 1: lane 1 of .* cannot be had: no;"):
        run(engine, 1, rows(1), ["y"])
    assert [copy.closed for copy in plan.copies] == [True]
    run(engine, 1, rows(1), ["y"])
    engine.close()
    assert [copy.closed for copy in (plan, *plan.copies)] == [True] * 3


def test_copies_of_the_weights_count(device: FakeDevice) -> None:
    plan = image_plan(device, (-1, MIB), (8, MIB), activation_bytes=64 * MIB, shares_profiles=False)
    device.memory_bytes = 200 * MIB
    with pytest.raises(ConfigError, match=r"^'.*' needs 257 MiB on GPU 0 \(1 MiB of weights and 2 × 128 MiB for its"):
        opened(device, plan, lanes=2)


# Memory


def test_a_plan_that_does_not_fit_is_refused_with_numbers(device: FakeDevice) -> None:
    plan = image_plan(device, (-1, MIB), (8, MIB), activation_bytes=64 * MIB)  # 2 × 32 MiB of tensors at batch 8
    device.memory_bytes = 200 * MIB
    with pytest.raises(ConfigError) as refused:
        opened(device, plan, lanes=2)
    assert str(refused.value) == (
        f"'{FILE}' needs 256 MiB on GPU 0 (2 × 128 MiB for its lanes), where 200 MiB of 200 MiB are free; "
        "use fewer device_lanes, a smaller max_batch_size or another GPU"
    )
    assert device.held == {}


def test_a_smaller_max_batch_size_needs_less(device: FakeDevice) -> None:
    device.memory_bytes = 200 * MIB
    engine = opened(device, image_plan(device, (-1, MIB), (8, MIB), activation_bytes=64 * MIB), lanes=2, most=2)
    assert device.held["bytes"] == 2 * (64 + 2 * 8) * MIB
    engine.close()


def test_memory_that_is_gone_before_it_is_taken(device: FakeDevice) -> None:
    device.failures["allocate"] = EngineError("GPU 0: allocating 128 bytes failed: cudaErrorMemoryAllocation")
    with pytest.raises(ConfigError, match=r"^lane 0 of '.*' cannot be had: GPU 0: allocating .*; '.*' needs 1 MiB on"):
        opened(device)
    assert device.held == {}


def test_one_more_lane_than_there_is_room_for(device: FakeDevice) -> None:
    engine = opened(device, image_plan(device, (-1, MIB), (8, MIB)), lanes=2)
    device.memory_bytes = device.held["bytes"] + MIB
    with pytest.raises(EngineError, match=r"^there is no room for lane 2: '.*' needs 65 MiB on GPU 0 .* where 1 MiB"):
        run(engine, 2, {"x": np.zeros((1, MIB), np.float32)}, ["y"])
    run(engine, 1, {"x": np.zeros((1, MIB), np.float32)}, ["y"])


def test_out_of_memory_in_a_run_fails_that_batch_alone(device: FakeDevice) -> None:
    plan = image_plan(device, (-1, -1), (8, 16))
    engine = opened(device, plan)
    plan.refuses["enqueue"] = EngineError("the model's run failed: Error Code 2: OutOfMemory")
    with pytest.raises(EngineError, match="OutOfMemory"):
        run(engine, 0, {"x": np.zeros((2, 4), np.float32)}, ["y"])
    assert run(engine, 0, {"x": np.ones((2, 4), np.float32)}, ["y"])[0].sum() == 8


def test_a_batch_larger_than_the_buffers_never_runs(device: FakeDevice) -> None:
    engine = opened(device, image_plan(device, (-1, -1), (8, 16)), most=2)
    with pytest.raises(
        EngineError, match=r"^'x' has shape \[8, 16\] in this batch, more than it can have by the plan$"
    ):
        run(engine, 0, {"x": np.zeros((8, 16), np.float32)}, ["y"])


@pytest.mark.parametrize("call", ["create_stream", "create_event", "allocate", "allocate_pinned", "drain", "memory"])
def test_whatever_fails_at_load_leaves_nothing_behind(call: str, device: FakeDevice) -> None:
    device.failures[call] = EngineError("no")
    with pytest.raises((ConfigError, EngineError), match="no"):
        opened(device)
    assert device.held == {}


def test_closing_gives_everything_back(device: FakeDevice) -> None:
    plan = double_plan(device)
    engine = opened(device, plan)
    run(engine, 0, rows(8), ["y"])
    run(engine, 5, rows(8), ["y"])
    engine.close()
    assert device.held == {}
    assert plan.closed


# Errors that come later


def failing(device: FakeDevice) -> FakePlan:
    """Its kernel reads where it may not if an input is 13, which shows when somebody waits."""

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if (inputs["x"] == 13).any():
            raise EngineError("GPU 0: running a batch failed: cudaErrorIllegalAddress")
        return {"y": inputs["x"]}

    plan = image_plan(device, (-1, 4), (8, 4))
    plan.compute = compute
    return plan


def test_a_lost_gpu_fails_the_model_clearly_and_at_once(device: FakeDevice) -> None:
    engine = opened(device, failing(device))
    run(engine, 0, rows(1), ["y"])
    with pytest.raises(EngineError, match=r"^GPU 0: running a batch failed: cudaErrorIllegalAddress$"):
        run(engine, 0, {"x": np.full((1, 4), 13, np.float32)}, ["y"])
    for lane in (0, 1, 7):
        with pytest.raises(
            EngineError, match=r"^GPU 0 failed while this process used it \(.*IllegalAddress\) and is lost"
        ):
            run(engine, lane, rows(1), ["y"])
    engine.close()


def test_a_gpu_that_is_lost_at_load_refuses_the_model(device: FakeDevice) -> None:
    def compute(_: Mapping[str, Array]) -> Mapping[str, Array]:
        raise EngineError("cudaErrorIllegalAddress")

    plan = image_plan(device, (-1, 4), (8, 4))
    plan.compute = compute
    with pytest.raises(EngineError, match="cudaErrorIllegalAddress"):
        opened(device, plan)


def test_a_failed_batch_is_over_before_the_next_begins(device: FakeDevice) -> None:
    """Its copy is still under way when its run is refused; were the staging memory reused, the next would be torn."""
    plan = image_plan(device, (-1, -1), (8, 16))
    engine = opened(device, plan)
    device.failures["copy_out"] = EngineError("no")
    with pytest.raises(EngineError, match="no"):
        run(engine, 0, {"x": np.full((8, 16), 7, np.float32)}, ["y"])
    assert all(queue.done == len(queue.ops) for queue in device._queues.values())
    assert run(engine, 0, {"x": np.ones((2, 3), np.float32)}, ["y"])[0].tolist() == [[1, 1, 1], [1, 1, 1]]


# Plans that cannot be served


def test_an_output_whose_shape_the_data_decide(device: FakeDevice) -> None:
    plan = image_plan(device, (-1, 4), (8, 4))
    plan.output_shapes = lambda _: {"y": (-1, 4)}
    with pytest.raises(
        ConfigError, match=r"^output 'y' of '.*' has shape \[-1, 4\], which the data decide; that cannot"
    ):
        opened(device, plan)
    assert device.held == {}


def test_a_model_that_does_not_batch(device: FakeDevice) -> None:
    engine = opened(device, image_plan(device, (3, 2), (3, 2)), most=0)
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(run(engine, 0, {"x": x}, ["y"])[0], x)
    assert device.launched == 1


@pytest.mark.parametrize("config", ["TYPE_FP32", "TYPE_FP16", "TYPE_INT8", "TYPE_INT32", "TYPE_INT64", "TYPE_BOOL"])
def test_each_type_goes_through_as_it_is(config: str, device: FakeDevice) -> None:
    same: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda inputs: {"y": inputs["x"]}  # noqa: E731
    tensors: list[PlanTensor] = [tensor(name, (-1, 3), config, is_input=name == "x") for name in ("x", "y")]
    plan = FakePlan(device, tensors, [OptimizationProfile({"x": (1, 3)}, {"x": (8, 3)}, {"x": (8, 3)})], same, same)
    x = np.array([[0, 1, 2], [1, 0, 100]]).astype(tensors[0].datatype.numpy)
    [y] = run(opened(device, plan), 0, {"x": x}, ["y"])
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x)


def test_an_empty_tensor(device: FakeDevice) -> None:
    plan = image_plan(device, (-1, -1), (8, 16))
    plan.profiles = [OptimizationProfile({"x": (1, 0)}, {"x": (8, 16)}, {"x": (8, 16)})]
    [y] = run(opened(device, plan), 0, {"x": np.zeros((2, 0), np.float32)}, ["y"])
    assert y.shape == (2, 0)


def test_kernels_have_the_priority_of_the_models_class(device: FakeDevice) -> None:
    engine = opened(device, lanes=2, priority=3)
    priorities = [device.priorities[stream] for stream in device.streams]
    assert sorted(priorities, key=str) == [3, 3, None, None, None, None], "one of a lane's three streams executes"
    engine.close()
