"""What the backend asks of an engine, wherever it runs: in this process or in another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.datatypes import Datatype

Array = NDArray[np.generic]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output as the model file has it; −1 stands for a dynamic dimension.

    optional: an input that the model has a default for.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class ModelSpecs:
    """What a model file takes and gives. max_batch_size: the largest batch it can take, None: as many as there are."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int | None = None


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

    def run(self, lane: int, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run one batch and return `outputs` in that order. Raises EngineError where the model's run fails."""

    def close(self) -> None:
        """Give back what the model holds; no run is under way."""
