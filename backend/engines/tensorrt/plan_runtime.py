"""Interface of a loaded plan as the TensorRT engine uses it: one TensorRT call each, in TensorRT's terms.

`plan` implements it with the real library. Nothing here decides anything or imports NVIDIA's libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from backend.engines.gpu.device import Address, Shape, Shapes, Stream
from backend.tensors import Datatype


class PlanTensor(msgspec.Struct, frozen=True):
    """An input or output of a plan; −1 stands for a dynamic dimension."""

    name: str
    datatype: Datatype
    shape: Shape
    is_input: bool


class OptimizationProfile(msgspec.Struct, frozen=True):
    """An optimisation profile: for each input the shapes it takes, dimension by dimension.

    optimum: those that the kernels were chosen for.
    """

    smallest: Shapes
    optimum: Shapes
    largest: Shapes


class PlanContext(Protocol):
    """Execution context of a plan under one profile; used by one thread at a time."""

    def set_memory(self, address: Address) -> None:
        """Set its working memory of `activation_bytes`, which contexts may share in turn. Only a run needs it."""

    def set_shape(self, name: str, shape: Shape) -> None: ...

    def shape(self, name: str) -> Shape:
        """Shape under the input shapes that are set; −1 where only the data decide it."""

    def set_address(self, name: str, address: Address) -> None: ...

    def enqueue(self, stream: Stream) -> None:
        """Enqueue a run with the shapes and addresses that are set. Raises EngineError."""


class LoadedPlan(Protocol):
    """A plan whose weights are on the device."""

    @property
    def version(self) -> str:
        """Version of TensorRT."""

    @property
    def tensors(self) -> Sequence[PlanTensor]:
        """In the plan's order."""

    @property
    def profiles(self) -> Sequence[OptimizationProfile]:
        """At least one."""

    @property
    def weights_bytes(self) -> int:
        """Device memory that loading it once more would take, roughly."""

    @property
    def activation_bytes(self) -> int:
        """Working memory of a context under any profile."""

    @property
    def shares_profiles(self) -> bool:
        """True where several contexts may use one profile; below TensorRT 10 one can."""

    def again(self) -> LoadedPlan:
        """Load the plan once more. Raises ConfigError."""

    def context(self, profile: int, stream: Stream) -> PlanContext:
        """Create a context under a profile, ready once the stream is drained. Raises EngineError."""

    def close(self) -> None:
        """Free the weights; no context is left."""
