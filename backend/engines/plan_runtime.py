"""What the TensorRT engine asks of a GPU and of a loaded plan: one call of NVIDIA's each, in NVIDIA's terms.

`cuda_device` and `tensorrt_plan` answer with the real libraries. Nothing here decides anything or imports NVIDIA's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

from backend.datatypes import Datatype

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

Address = NewType("Address", int)
Stream = NewType("Stream", int)
Event = NewType("Event", int)
Graph = NewType("Graph", int)


@dataclass(frozen=True)
class PlanTensor:
    """An input or output of a plan; −1 stands for a dynamic dimension."""

    name: str
    datatype: Datatype
    shape: Shape
    is_input: bool


@dataclass(frozen=True)
class Profile:
    """An optimisation profile: for each input the shapes it takes, dimension by dimension."""

    smallest: Shapes
    largest: Shapes


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

    def create_stream(self) -> Stream: ...

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


class Context(Protocol):
    """A plan under one profile; never used by two threads at a time."""

    def set_memory(self, address: Address) -> None:
        """Where it works, `activation_bytes` long. Contexts that take turns may share it. Only a run needs it."""

    def set_shape(self, name: str, shape: Shape) -> None: ...

    def shape(self, name: str) -> Shape:
        """Under the input shapes that are set; −1 where only the data decide."""

    def set_address(self, name: str, address: Address) -> None: ...

    def enqueue(self, stream: Stream) -> None:
        """Run with the shapes and addresses that are set, in the stream's order. Raises EngineError."""


class Plan(Protocol):
    """A plan whose weights are on the device."""

    @property
    def version(self) -> str:
        """Of TensorRT."""

    @property
    def tensors(self) -> Sequence[PlanTensor]:
        """In the plan's order."""

    @property
    def profiles(self) -> Sequence[Profile]:
        """At least one."""

    @property
    def activation_bytes(self) -> int:
        """Device memory that a context works in, whatever its profile."""

    def context(self, profile: int, stream: Stream) -> Context:
        """A context under a profile, ready once the stream is drained. Raises EngineError."""

    def close(self) -> None:
        """Give back the weights; no context is left."""
