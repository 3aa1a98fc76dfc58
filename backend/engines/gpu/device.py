"""Interface of a GPU as the engines use it: one CUDA call each, in CUDA's terms. `cuda_device` implements it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType, Protocol

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

Address = NewType("Address", int)
Stream = NewType("Stream", int)
Event = NewType("Event", int)
CudaGraph = NewType("CudaGraph", int)


@dataclass(frozen=True)
class GpuMemory:
    """Device memory at one moment."""

    free_bytes: int
    total_bytes: int


class GpuDevice(Protocol):
    """One GPU. Its calls raise EngineError; once it is `lost`, all that follow fail in this process."""

    @property
    def index(self) -> int:
        """Number by which CUDA knows the GPU in this process."""

    @property
    def lost(self) -> str | None:
        """Reason why no call can succeed any more, None while calls can."""

    def activate(self) -> None:
        """Make it the calling thread's device; each thread calls this first."""

    def memory(self) -> GpuMemory: ...

    def allocate(self, size_bytes: int) -> Address:
        """Allocate device memory, aligned to at least 256 bytes."""

    def free(self, address: Address) -> None: ...

    def allocate_pinned(self, size_bytes: int) -> Address:
        """Allocate page-locked host memory, from and to which copies are asynchronous."""

    def free_pinned(self, address: Address) -> None: ...

    def create_stream(self, priority: int | None = None) -> Stream:
        """Create a stream. priority: 1 is the highest; kernels wait for those of higher priorities. A device has few
        levels: all priorities beyond them, and None, are its lowest.
        """

    def destroy_stream(self, stream: Stream) -> None: ...

    def drain(self, stream: Stream) -> None:
        """Wait until nothing is left on the stream."""

    def create_event(self) -> Event: ...

    def destroy_event(self, event: Event) -> None: ...

    def record(self, event: Event, stream: Stream) -> None: ...

    def wait(self, stream: Stream, event: Event) -> None:
        """Let what follows on the stream begin after the event; returns at once."""

    def synchronize(self, event: Event) -> None:
        """Block until the event, without spinning. Raises errors of the work before it."""

    def elapsed_ns(self, start: Event, end: Event) -> int: ...

    def copy_in(self, target: Address, source: Address, size_bytes: int, stream: Stream) -> None:
        """Enqueue a copy of pinned host memory to device memory."""

    def copy_out(self, target: Address, source: Address, size_bytes: int, stream: Stream) -> None:
        """Enqueue a copy of device memory to pinned host memory."""

    def begin_capture(self, stream: Stream) -> None:
        """Record what this thread enqueues on the stream from here on, instead of running it."""

    def end_capture(self, stream: Stream) -> CudaGraph:
        """Graph of what was recorded, ready to launch. Also ends a capture that went wrong, then raises."""

    def launch(self, graph: CudaGraph, stream: Stream) -> None: ...

    def destroy_graph(self, graph: CudaGraph) -> None: ...
