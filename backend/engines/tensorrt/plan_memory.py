"""Device memory that a plan needs, and the refusal where there is less. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backend.engines.gpu.device import GpuMemory
from backend.errors import ConfigError

_MIB = 1 << 20


@dataclass(frozen=True)
class MemoryBudget:
    """Memory that a plan needs. weights_bytes: yet to be loaded. lane_bytes: activations and tensors of one lane."""

    weights_bytes: int
    lane_bytes: int
    lanes: int

    @property
    def needed_bytes(self) -> int:
        return self.weights_bytes + self.lane_bytes * self.lanes

    def sentence(self, file: Path, gpu: int, memory: GpuMemory) -> str:
        """Sentence that states what is needed, for what, and what is free."""
        parts = [f"{_mib(self.weights_bytes)} of weights"] if self.weights_bytes else []
        if self.lane_bytes:
            parts.append(f"{self.lanes} × {_mib(self.lane_bytes)} for its lanes")
        return (
            f"'{file}' needs {_mib(self.needed_bytes)} on GPU {gpu} ({' and '.join(parts)}), where "
            f"{_mib(memory.free_bytes)} of {_mib(memory.total_bytes)} are free; "
            "use fewer device_lanes, a smaller max_batch_size or another GPU"
        )


def check_budget(budget: MemoryBudget, file: Path, gpu: int, memory: GpuMemory) -> None:
    """Refuse a plan that would run out of memory later. Raises ConfigError."""
    if budget.needed_bytes > memory.free_bytes:
        raise ConfigError(budget.sentence(file, gpu, memory))


def _mib(size_bytes: int) -> str:
    return f"{-(-size_bytes // _MIB)} MiB"
