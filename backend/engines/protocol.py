"""Interface of an engine, in this process or as a client of the engine process, and the options to open one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import msgspec

from backend.errors import ConfigError, quoted
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.tensors import Array, Feeds, TensorSpec


@dataclass(frozen=True)
class ModelSpecs:
    """Inputs and outputs of a model file. max_batch_size: the largest batch it takes, None: unlimited.

    unserved: outputs that no tensor of Triton can hold, each with the reason and what to do.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int | None = None
    unserved: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class OnnxOptions(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Options of ONNX Runtime's sessions in config.pbtxt. op_libraries: files of custom operators. graph_level: of its
    optimisations, as in config.pbtxt. memory_arena, memory_pattern: how it allocates memory on the CPU.
    """

    op_libraries: tuple[str, ...] = ()
    graph_level: int = 0
    memory_arena: bool = True
    memory_pattern: bool = True

    @property
    def deviations(self) -> str:
        """Options other than the default that timings depend on, for `Engine.identity`."""
        deviations = {
            f", graph level {self.graph_level}": self.graph_level != 0,
            ", no memory arena": not self.memory_arena,
            ", no memory pattern": not self.memory_pattern,
        }
        return "".join(text for text, applies in deviations.items() if applies)


DEFAULT_ONNX_OPTIONS = OnnxOptions()


class EngineOptions(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Options that a model file is opened with. device_id: a GPU, None on CPU. lanes: opened at load; another is opened
    when a batch comes for it. max_batch_size: 0 where the model does not batch. priority: the class of the model, 1 is
    the highest: on a GPU its kernels precede those of lower classes. onnx: for a model.onnx. time_dilation: real time
    per time of an emulated device. mps_percent: its share of the multiprocessors there; on a GPU MPS knows it.
    emulated: that device's name, of those in the model file; None for the first.
    """

    device_id: int | None
    lanes: int
    max_batch_size: int
    priority: int = 1
    onnx: OnnxOptions = DEFAULT_ONNX_OPTIONS
    time_dilation: float = 1.0
    mps_percent: int | None = None
    emulated: str | None = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """outputs: in the order asked for, owned by the caller. exec_ns: of the model's run without transfers.

    transfer_in_ns, transfer_out_ns: of the inputs to the device, before the run, and of the outputs back, after it; 0
    where nothing is transferred, or the transfer cannot be told from the run.
    """

    outputs: list[Array]
    exec_ns: int
    transfer_in_ns: int = 0
    transfer_out_ns: int = 0


def check_file(file: Path) -> None:
    """Refuse a model file that is missing or empty. Raises ConfigError."""
    try:
        if not file.is_file():
            raise ConfigError(f"there is no model file '{file}'")
        if file.stat().st_size == 0:
            raise ConfigError(f"the model file '{file}' is empty")
    except OSError as error:  # its name is too long
        raise ConfigError(f"the model file '{quoted(str(file))}' cannot be read: {error.strerror}") from None


class Engine(Protocol):
    """A loaded model, which may run several batches at once, one per lane."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""

    @property
    def identity(self) -> str:
        """Engine, version and all else that its timings depend on."""

    @property
    def lost(self) -> str | None:
        """Reason why this process can run nothing any more on the engine's device, None while it can."""

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
        """Free what the model holds; no run is under way."""
