"""The emulated GPU as the simulator's device: batches take what the law says, on lanes that cannot be preempted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

from backend.simulation.device import EndedBatch, Key
from backend.simulation.gpu_law import KernelDemand
from backend.simulation.virtual_gpu import GpuBatch, VirtualGpu
from predictor.features import Own

Demands = Callable[[str, int], tuple[float, KernelDemand]]
"""(model, rows) → solo latency in nanoseconds and demand of such a batch."""


class SimulatedGpu:
    """See `SimulatedDevice`. Nothing is under way on `gpu` yet."""

    def __init__(self, gpu: VirtualGpu, demands: Demands) -> None:
        self._gpu, self._demands = gpu, demands
        self._keys: dict[GpuBatch, Key] = {}

    def start(
        self,
        key: Key,
        own: Own,
        now_ns: float,
        bytes_in: float = 0.0,
        bytes_out: float = 0.0,
        *,
        preempted: Sequence[Key] = (),
        core: int | None = None,  # noqa: ARG002 - a GPU's lanes share no cores
    ) -> None:
        """See `SimulatedDevice.start`."""
        assert not preempted, "a GPU suspends no batch"
        solo_ns, demand = self._demands(own.model, own.batch_size)
        due_ns = self._gpu.next_ns  # within the simulator's nanosecond
        at_ns = now_ns if due_ns is None else min(now_ns, due_ns)
        self._keys[self._gpu.submit(demand, solo_ns, at_ns, round(bytes_in), round(bytes_out))] = key

    @property
    def next_ns(self) -> float | None:
        """See `SimulatedDevice.next_ns`."""
        next_ns = self._gpu.next_ns
        return None if next_ns is None else ceil(next_ns)

    def under_way(self, now_ns: float) -> list[tuple[Key, KernelDemand, float]]:
        """Batches that are not finished, with their demands, and the time that each still takes beside the others."""
        return [(self._keys[batch], batch.demand, left_ns) for batch, left_ns in self._gpu.under_way(now_ns)]

    def step(self) -> EndedBatch | None:
        """See `SimulatedDevice.step`."""
        batch = self._gpu.step()
        if batch is None:
            return None
        times = batch.times
        h2d_ns, d2h_ns = times.started_ns - times.submitted_ns, times.finished_ns - times.executed_ns
        exec_ns = max(1, round(times.executed_ns - times.started_ns))
        return EndedBatch(self._keys.pop(batch), exec_ns, round(h2d_ns), round(d2h_ns))
