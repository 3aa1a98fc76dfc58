"""What the lanes of ONNX Runtime on a GPU ask of it. `onnx_bound` answers with the real library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from backend.engines.gpu.transfers import Placed
from backend.tensors import Array, TensorSpec


class BoundSession(Protocol):
    """A loaded model that runs on one stream, on tensors where they lie; used by one thread at a time."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""

    @property
    def on_device(self) -> frozenset[str]:
        """Inputs that the model reads from device memory; the others it wants in the host's."""

    def bind(self, places: Sequence[Placed], host: Mapping[str, Array]) -> None:
        """All inputs of the next run: on the device, where the data may come until then; in host memory.

        Raises EngineError.
        """

    def run(self, outputs: Sequence[str]) -> list[Placed]:
        """Enqueue, and say where the outputs will lie until the next `bind`. Raises EngineError."""

    def close(self) -> None:
        """Give back the model; nothing is under way."""
