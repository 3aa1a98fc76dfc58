"""What the engines ask of a GPU: one call of CUDA's each, in its terms. `cuda_device` answers with the real library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType, Protocol

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

Address = NewType("Address", int)
Stream = NewType("Stream", int)
Event = NewType("Event", int)
Graph = NewType("Graph", int)


@dataclass(frozen=True)
class Memory:
    """Of a GPU, now."""

    free_bytes: int
    total_bytes: int


class Device(Protocol):
    """One GPU. Its calls raise EngineError; once it is `lost`, all that follow fail in this process."""

    @property
    def index(self) -> int:
        """As CUDA counts in this process."""

    @property
    def lost(self) -> str | None:
        """Why no call can succeed any more, where that is so."""

    def activate(self) -> None:
        """Make it the calling thread's device. Each thread needs that before anything else."""

    def memory(self) -> Memory: ...

    def allocate(self, size_bytes: int) -> Address:
        """Device memory, aligned to 256 bytes at least."""

    def free(self, address: Address) -> None: ...

    def allocate_pinned(self, size_bytes: int) -> Address:
        """Host memory that copies to and from the device can run beside everything else."""

    def free_pinned(self, address: Address) -> None: ...

    def create_stream(self, priority: int | None = None) -> Stream:
        """priority: 1 is the highest; kernels wait for those of higher priorities. The device has few levels: all lower
        ones are its lowest, as where None is asked for.
        """

    def destroy_stream(self, stream: Stream) -> None: ...

    def drain(self, stream: Stream) -> None:
        """Wait until nothing is left on the stream."""

    def create_event(self) -> Event: ...

    def destroy_event(self, event: Event) -> None: ...

    def record(self, event: Event, stream: Stream) -> None: ...

    def wait(self, stream: Stream, event: Event) -> None:
        """Let what follows on the stream begin after the event; the caller goes on at once."""

    def synchronize(self, event: Event) -> None:
        """Wait for the event, without a core spinning. Errors of work before it come out here."""

    def elapsed_ns(self, start: Event, end: Event) -> int: ...

    def copy_in(self, target: Address, source: Address, size_bytes: int, stream: Stream) -> None:
        """Pinned host memory to device memory, in the stream's order."""

    def copy_out(self, target: Address, source: Address, size_bytes: int, stream: Stream) -> None:
        """Device memory to pinned host memory, in the stream's order."""

    def begin_capture(self, stream: Stream) -> None:
        """From here on what this thread puts on the stream is kept, not run."""

    def end_capture(self, stream: Stream) -> Graph:
        """What was kept, ready to launch. Also ends a capture that went wrong, then raises."""

    def launch(self, graph: Graph, stream: Stream) -> None: ...

    def destroy_graph(self, graph: Graph) -> None: ...
