"""CUDA's results become one sentence each. The real cuda-bindings; only what a driver would answer is made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cuda.bindings import runtime

from backend.engines.gpu.cuda_device import _LOST, CudaDevice
from backend.engines.gpu.device import Event, GpuMemory, Stream
from backend.errors import ConfigError, EngineError

STATUS = runtime.cudaError_t
OK = STATUS.cudaSuccess
_, COUNT = runtime.cudaGetDeviceCount()

Answer = Callable[..., None]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Makes functions of CUDA return what a driver would."""

    def answer(**results: tuple[Any, ...]) -> None:
        for name, result in results.items():
            monkeypatch.setattr(runtime, name, lambda *_, result=result: result)

    return answer


@pytest.fixture
def device(answers: Answer) -> CudaDevice:
    answers(cudaGetDeviceCount=(OK, 1), cudaSetDevice=(OK,))
    return CudaDevice(0)


def test_lost_is_what_cuda_says_so_of() -> None:
    """In the words that come with its Python bindings."""
    said = {status for status in STATUS if "process must be terminated" in " ".join((status.__doc__ or "").split())}
    assert set(_LOST) == said


@pytest.mark.skipif(COUNT is not None and COUNT > 0, reason="there is a GPU here")
def test_no_driver() -> None:
    with pytest.raises(
        ConfigError, match=r"^a plan needs a GPU with NVIDIA's driver, but there is none that suffices \("
    ):
        CudaDevice(0)


@pytest.mark.parametrize(
    ("answer", "index", "says"),
    [
        (
            (STATUS.cudaErrorNoDevice, None),
            0,
            "a plan needs a GPU, but this process sees none; CUDA_VISIBLE_DEVICES may",
        ),
        ((OK, 0), 0, "a plan needs a GPU, but this process sees none"),
        ((OK, 1), 1, "there is no GPU 1: this process sees GPU 0"),
        ((OK, 4), 7, "there is no GPU 7: this process sees GPUs 0 to 3"),
        ((STATUS.cudaErrorInitializationError, None), 0, "a plan needs a GPU, but CUDA does not start: cudaErrorInit"),
    ],
)
def test_no_such_gpu(answer: tuple[Any, ...], index: int, says: str, answers: Answer) -> None:
    answers(cudaGetDeviceCount=answer)
    with pytest.raises(ConfigError) as refused:
        CudaDevice(index)
    assert str(refused.value).startswith(says)


def test_out_of_memory_is_no_loss(device: CudaDevice, answers: Answer) -> None:
    answers(cudaMalloc=(STATUS.cudaErrorMemoryAllocation, None))
    with pytest.raises(
        EngineError, match=r"^GPU 0: allocating 4096 bytes failed: cudaErrorMemoryAllocation, out of memory$"
    ):
        device.allocate(4096)
    assert device.lost is None


def test_an_error_of_work_under_way_loses_the_gpu(device: CudaDevice, answers: Answer) -> None:
    answers(cudaEventSynchronize=(STATUS.cudaErrorIllegalAddress,))
    with pytest.raises(
        EngineError, match=r"^GPU 0: running a batch failed: cudaErrorIllegalAddress, an illegal memory"
    ):
        device.synchronize(Event(1))
    assert device.lost is not None
    assert device.lost.startswith("cudaErrorIllegalAddress")


def test_values_come_without_the_status(device: CudaDevice, answers: Answer) -> None:
    answers(
        cudaMemGetInfo=(OK, 5, 9),
        cudaEventElapsedTime=(OK, 1.25),
        cudaMalloc=(OK, 4096),
        cudaDeviceGetPCIBusId=(OK, b"0000:65:00.0\0\0\0"),
        cudaDeviceGetAttribute=(OK, 9),
    )
    assert device.memory() == GpuMemory(free_bytes=5, total_bytes=9)
    assert device.elapsed_ns(Event(1), Event(2)) == 1_250_000
    assert device.allocate(1) == 4096
    assert device.compute_capability() == "9.9"


def test_a_graph_that_cannot_be_prepared_is_not_kept(
    device: CudaDevice, answers: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    destroyed: list[int] = []

    def destroy(graph: int) -> tuple[Any]:
        destroyed.append(graph)
        return (OK,)

    answers(cudaStreamEndCapture=(OK, 77), cudaGraphInstantiate=(STATUS.cudaErrorMemoryAllocation, None))
    monkeypatch.setattr(runtime, "cudaGraphDestroy", destroy)
    with pytest.raises(EngineError, match=r"preparing a CUDA graph failed: cudaErrorMemoryAllocation"):
        device.end_capture(Stream(1))
    assert destroyed == [77]


@pytest.mark.parametrize(
    ("levels", "priority", "level"),
    [((0, -5), None, 0), ((0, -5), 1, -5), ((0, -5), 2, -4), ((0, -5), 6, 0), ((0, -5), 100, 0), ((0, 0), 1, 0)],
)
def test_priorities(
    levels: tuple[int, int],
    priority: int | None,
    level: int,
    device: CudaDevice,
    answers: Answer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int]] = []

    def create(flags: int, priority: int) -> tuple[Any, int]:
        asked.append((flags, priority))
        return OK, 7

    answers(cudaDeviceGetStreamPriorityRange=(OK, *levels))
    monkeypatch.setattr(runtime, "cudaStreamCreateWithPriority", create)
    assert device.create_stream(priority) == 7
    assert asked == [(runtime.cudaStreamNonBlocking, level)]
