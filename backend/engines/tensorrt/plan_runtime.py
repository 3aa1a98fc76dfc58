"""What the TensorRT engine asks of a loaded plan: one call of TensorRT's each, in its terms.

`tensorrt_plan` answers with the real library. Nothing here decides anything or imports NVIDIA's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from backend.engines.gpu.device import Address, Shape, Shapes, Stream
from backend.tensors import Datatype


@dataclass(frozen=True)
class PlanTensor:
    """An input or output of a plan; −1 stands for a dynamic dimension."""

    name: str
    datatype: Datatype
    shape: Shape
    is_input: bool


@dataclass(frozen=True)
class OptimizationProfile:
    """An optimisation profile: for each input the shapes it takes, dimension by dimension."""

    smallest: Shapes
    largest: Shapes


class PlanContext(Protocol):
    """A plan under one profile; never used by two threads at a time."""

    def set_memory(self, address: Address) -> None:
        """Where it works, `activation_bytes` long. Contexts that take turns may share it. Only a run needs it."""

    def set_shape(self, name: str, shape: Shape) -> None: ...

    def shape(self, name: str) -> Shape:
        """Under the input shapes that are set; −1 where only the data decide."""

    def set_address(self, name: str, address: Address) -> None: ...

    def enqueue(self, stream: Stream) -> None:
        """Run with the shapes and addresses that are set, in the stream's order. Raises EngineError."""


class LoadedPlan(Protocol):
    """A plan whose weights are on the device."""

    @property
    def version(self) -> str:
        """Of TensorRT."""

    @property
    def tensors(self) -> Sequence[PlanTensor]:
        """In the plan's order."""

    @property
    def profiles(self) -> Sequence[OptimizationProfile]:
        """At least one."""

    @property
    def weights_bytes(self) -> int:
        """Device memory that loading it once more would take, about."""

    @property
    def activation_bytes(self) -> int:
        """Device memory that a context works in, whatever its profile."""

    @property
    def shares_profiles(self) -> bool:
        """Whether several contexts may be under one profile. In TensorRT below 10 there is one of each."""

    def again(self) -> LoadedPlan:
        """The plan loaded once more. Raises ConfigError."""

    def context(self, profile: int, stream: Stream) -> PlanContext:
        """A context under a profile, ready once the stream is drained. Raises EngineError."""

    def close(self) -> None:
        """Give back the weights; no context is left."""
