"""What the backend asks of an engine, wherever it runs: in this process or in another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import msgspec

from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.tensors import Array, Feeds, TensorSpec


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


DEFAULT_ONNX_OPTIONS = OnnxOptions()


class EngineOptions(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a model file is opened for. device_id: a GPU, None on CPU. lanes: to be had at once; one more is made when a
    batch comes for it. max_batch_size: 0 where the model does not batch. priority: the class of the model, 1 is the
    highest: on a GPU its kernels go before those of lower classes. onnx: for a model.onnx.
    """

    device_id: int | None
    lanes: int
    max_batch_size: int
    priority: int = 1
    onnx: OnnxOptions = DEFAULT_ONNX_OPTIONS


@dataclass(frozen=True, slots=True)
class BatchResult:
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

    def run(
        self,
        lane: int,
        feeds: Feeds,
        outputs: Sequence[str],
        priority: ExecutionPriority = ORDINARY_PRIORITY,
        *,
        exclusive: bool = False,
    ) -> BatchResult:
        """Run one batch on the calling thread. Raises EngineError where the model's run fails.

        outputs: names of those wanted. priority: entered for the execution, in which as little as possible holds
        Python's lock. exclusive: nothing else of this process runs or waits, so that the execution may hold the lock.
        """

    def close(self) -> None:
        """Give back what the model holds; no run is under way."""
