"""What the backend asks of an engine, wherever it runs: in this process or in another one."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import msgspec

from backend.tensors import Array, Feeds, TensorSpec


class Helpers(Protocol):
    """Threads of an engine that execute a batch together with a lane's."""

    @property
    def threads(self) -> Sequence[int]:
        """By the kernel's numbers."""

    def follow(self, thread: int, cores: Collection[int] | None) -> None:
        """Take that thread's rank, as far as the kernel lets them. cores: where they may go, None: each has its own."""


class Executing(AbstractContextManager[None]):
    """What a batch is executed in, and nothing else that a lane's thread does. This one changes nothing."""

    def __exit__(self, *raised: object) -> bool | None:
        """End it."""

    def bring(self, helpers: Helpers) -> None:
        """Within it: these execute with this thread."""
        helpers.follow(threading.get_native_id(), None)


AS_IT_IS = Executing()


class Alone(Executing):
    """Executing with the device to itself: nobody waits for Python's lock meanwhile, so an engine may hold it."""

    def __init__(self, executing: Executing) -> None:
        self._executing = executing

    def __enter__(self) -> None:
        self._executing.__enter__()

    def __exit__(self, *raised: object) -> bool | None:
        return self._executing.__exit__(*raised)

    def bring(self, helpers: Helpers) -> None:
        """See `Executing.bring`."""
        self._executing.bring(helpers)


@dataclass(frozen=True)
class ModelSpecs:
    """What a model file takes and gives. max_batch_size: the largest batch it can take, None: as many as there are.

    unserved: outputs that no tensor of Triton can hold, with why and what to do.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int | None = None
    unserved: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class OnnxOptions(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What config.pbtxt asks of ONNX Runtime's sessions. op_libraries: files with custom operators. graph_level: of its
    optimisations, as in config.pbtxt. memory_arena, memory_pattern: how it takes memory on the CPU.
    """

    op_libraries: tuple[str, ...] = ()
    graph_level: int = 0
    memory_arena: bool = True
    memory_pattern: bool = True

    @property
    def unusual(self) -> str:
        """What timings depend on and is not as usual, for `Engine.identity`."""
        told = {
            f", graph level {self.graph_level}": self.graph_level != 0,
            ", no memory arena": not self.memory_arena,
            ", no memory pattern": not self.memory_pattern,
        }
        return "".join(what for what, so in told.items() if so)


AS_USUAL = OnnxOptions()


class EngineOptions(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a model file is opened for. device_id: a GPU, None on CPU. lanes: to be had at once; one more is made when a
    batch comes for it. max_batch_size: 0 where the model does not batch. priority: the class of the model, 1 is the
    highest: on a GPU its kernels go before those of lower classes. onnx: for a model.onnx.
    """

    device_id: int | None
    lanes: int
    max_batch_size: int
    priority: int = 1
    onnx: OnnxOptions = AS_USUAL


@dataclass(frozen=True, slots=True)
class Ran:
    """outputs: in the order asked for, the caller's own. exec_ns: of the model's run, not of bringing tensors to it.

    transfer_in_ns, transfer_out_ns: from when the inputs set out for the device until they were there, before the run,
    and the outputs' way back after it; 0 where tensors stay where they are, or that cannot be told from the run.
    """

    outputs: list[Array]
    exec_ns: int
    transfer_in_ns: int = 0
    transfer_out_ns: int = 0


class Engine(Protocol):
    """A loaded model that may run several batches at once, one per lane."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""

    @property
    def identity(self) -> str:
        """Engine, version and whatever else its timings depend on."""

    @property
    def lost(self) -> str | None:
        """Why this process can run nothing any more on the engine's device, None while it can."""

    def run(self, lane: int, feeds: Feeds, outputs: Sequence[str], executing: Executing = AS_IT_IS) -> Ran:
        """Run one batch; `outputs` names what is wanted of it. Raises EngineError where the model's run fails.

        executing: where this thread executes it. As little as can be happens in there that holds Python's lock, unless
        it is `Alone`.
        """

    def close(self) -> None:
        """Give back what the model holds; no run is under way."""
