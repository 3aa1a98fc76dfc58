"""A GPU by CUDA's runtime API: one call each, every result checked. Importing this module needs `cuda-bindings`."""

from __future__ import annotations

from typing import Any

from backend.device.cuda import check_gpu, describe, text  # first: it says so in a sentence where CUDA is missing

# isort: split
from cuda.bindings import runtime

from backend.engines.gpu.device import Address, CudaGraph, Event, GpuMemory, Stream
from backend.errors import EngineError

_NS_PER_MS = 1e6
_E = runtime.cudaError_t
_LOST = (
    _E.cudaErrorAssert,
    _E.cudaErrorContained,
    _E.cudaErrorExternalDevice,
    _E.cudaErrorHardwareStackError,
    _E.cudaErrorIllegalAddress,
    _E.cudaErrorIllegalInstruction,
    _E.cudaErrorInvalidAddressSpace,
    _E.cudaErrorInvalidPc,
    _E.cudaErrorLaunchFailure,
    _E.cudaErrorLaunchTimeout,
    _E.cudaErrorMisalignedAddress,
    _E.cudaErrorMpsClientTerminated,
    _E.cudaErrorTensorMemoryLeak,
)
"""Errors after which, by CUDA's documentation, the process must be ended to use CUDA again."""


class CudaDevice:
    """See `GpuDevice`. whose: what needs the GPU, for error messages. Raises ConfigError where there is no such GPU."""

    def __init__(self, index: int, whose: str = "a plan") -> None:
        check_gpu(index, whose)
        self.index = index
        self.lost: str | None = None
        self.activate()

    def activate(self) -> None:
        self._call("taking the device", runtime.cudaSetDevice(self.index))

    def name(self) -> str:
        """Product name."""
        properties: runtime.cudaDeviceProp = self._call("asking its name", runtime.cudaGetDeviceProperties(self.index))
        return text(properties.name)

    def compute_capability(self) -> str:
        """Compute capability, such as "9.0"."""
        kind = runtime.cudaDeviceAttr
        major, minor = (
            self._call("asking its capability", runtime.cudaDeviceGetAttribute(attribute, self.index))
            for attribute in (kind.cudaDevAttrComputeCapabilityMajor, kind.cudaDevAttrComputeCapabilityMinor)
        )
        return f"{major}.{minor}"

    def memory(self) -> GpuMemory:
        free_bytes, total_bytes = self._call("asking for free memory", runtime.cudaMemGetInfo())
        return GpuMemory(int(free_bytes), int(total_bytes))

    def allocate(self, size_bytes: int) -> Address:
        return Address(int(self._call(f"allocating {size_bytes} bytes", runtime.cudaMalloc(size_bytes))))

    def free(self, address: Address) -> None:
        self._call("freeing memory", runtime.cudaFree(address))

    def allocate_pinned(self, size_bytes: int) -> Address:
        result = runtime.cudaHostAlloc(size_bytes, runtime.cudaHostAllocDefault)
        return Address(int(self._call(f"pinning {size_bytes} bytes of host memory", result)))

    def free_pinned(self, address: Address) -> None:
        self._call("freeing pinned memory", runtime.cudaFreeHost(address))

    def create_stream(self, priority: int | None = None) -> Stream:
        # CUDA's levels ascend from the greatest priority, the smallest number, to the least; a GPU without any has 0 as
        # both.
        level, greatest = self._call("asking for priorities", runtime.cudaDeviceGetStreamPriorityRange())
        if priority is not None:
            level = min(level, greatest + priority - 1)
        # Blocking streams would wait for whatever another library puts on the default stream.
        result = runtime.cudaStreamCreateWithPriority(runtime.cudaStreamNonBlocking, level)
        return Stream(int(self._call("making a stream", result)))

    def destroy_stream(self, stream: Stream) -> None:
        self._call("ending a stream", runtime.cudaStreamDestroy(stream))

    def drain(self, stream: Stream) -> None:
        self._call("running a batch", runtime.cudaStreamSynchronize(stream))

    def create_event(self) -> Event:
        # A thread that waits would else spin, on a core that the queue and the other lanes need.
        result = runtime.cudaEventCreateWithFlags(runtime.cudaEventBlockingSync)
        return Event(int(self._call("making an event", result)))

    def destroy_event(self, event: Event) -> None:
        self._call("ending an event", runtime.cudaEventDestroy(event))

    def record(self, event: Event, stream: Stream) -> None:
        self._call("recording an event", runtime.cudaEventRecord(event, stream))

    def wait(self, stream: Stream, event: Event) -> None:
        self._call("ordering two streams", runtime.cudaStreamWaitEvent(stream, event, runtime.cudaEventWaitDefault))

    def synchronize(self, event: Event) -> None:
        self._call("running a batch", runtime.cudaEventSynchronize(event))

    def elapsed_ns(self, start: Event, end: Event) -> int:
        milliseconds: float = self._call("reading a time", runtime.cudaEventElapsedTime(start, end))
        return round(milliseconds * _NS_PER_MS)

    def copy_in(self, target: Address, source: Address, size_bytes: int, stream: Stream) -> None:
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("copying inputs", runtime.cudaMemcpyAsync(target, source, size_bytes, kind, stream))

    def copy_out(self, target: Address, source: Address, size_bytes: int, stream: Stream) -> None:
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("copying outputs", runtime.cudaMemcpyAsync(target, source, size_bytes, kind, stream))

    def begin_capture(self, stream: Stream) -> None:
        # Thread-local: other lanes and models go on allocating and launching meanwhile.
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("beginning a CUDA graph", runtime.cudaStreamBeginCapture(stream, mode))

    def end_capture(self, stream: Stream) -> CudaGraph:
        kept = self._call("ending a CUDA graph", runtime.cudaStreamEndCapture(stream))
        try:
            return CudaGraph(int(self._call("preparing a CUDA graph", runtime.cudaGraphInstantiate(kept, 0))))
        finally:
            self._call("ending a CUDA graph", runtime.cudaGraphDestroy(kept))

    def launch(self, graph: CudaGraph, stream: Stream) -> None:
        self._call("launching a CUDA graph", runtime.cudaGraphLaunch(graph, stream))

    def destroy_graph(self, graph: CudaGraph) -> None:
        self._call("ending a CUDA graph", runtime.cudaGraphExecDestroy(graph))

    def _call(self, doing: str, result: tuple[Any, ...]) -> Any:
        """Values of a call without its status; a single one as it is, several as a tuple. Raises EngineError."""
        status, *values = result
        if status != _E.cudaSuccess:
            raise self._error(doing, status)
        return values[0] if len(values) == 1 else tuple(values)

    def _error(self, doing: str, status: runtime.cudaError_t) -> EngineError:
        runtime.cudaGetLastError()  # else TensorRT would find it and take it for its own
        reason = describe(status)
        if status in _LOST:
            self.lost = reason
        return EngineError(f"GPU {self.index}: {doing} failed: {reason}")
