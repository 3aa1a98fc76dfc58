"""The emulated GPU as a device of `backend.simulation.simulator`: the scheduler's batches on a `VirtualGpu`."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from backend.simulation.device import EndedBatch, Key, VirtualDevice
from backend.simulation.virtual_gpu import GpuBatch, VirtualGpu
from benchmarks.gpu_emulated.drawn_gpu import COPIES, DrawnGpu
from predictor.features import Own


class LawDevice(VirtualDevice):
    """Batches of a drawn GPU's models, each as long as the law says. Nothing preempts: a GPU's kernels run on."""

    def __init__(self, drawn: DrawnGpu) -> None:
        self._models = drawn.by_name
        self._gpu = VirtualGpu(drawn.law, COPIES)
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
        core: int | None = None,  # noqa: ARG002 - a lane is no core
    ) -> None:
        """Begin a batch."""
        assert not preempted, "nothing preempts on a GPU"
        model, due_ns = self._models[own.model], self._gpu.next_ns
        rows, at_ns = own.batch_size, now_ns if due_ns is None else min(now_ns, due_ns)
        solo_ns = float(model.solo_ns(rows))
        batch = self._gpu.submit(model.demand(rows), solo_ns, at_ns, round(bytes_in), round(bytes_out))
        self._keys[batch] = key

    @property
    def next_ns(self) -> float | None:
        """Instant at which a batch's present stage ends, in whole nanoseconds."""
        due_ns = self._gpu.next_ns
        return None if due_ns is None else ceil(due_ns)

    def step(self) -> EndedBatch | None:
        """Let happen what is due at `next_ns`; returns the batch that is over by it, if one is."""
        batch = self._gpu.step()
        if batch is None:
            return None
        submitted_ns, started_ns, executed_ns, finished_ns = batch.times
        exec_ns, h2d_ns = max(1, round(executed_ns - started_ns)), round(started_ns - submitted_ns)
        return EndedBatch(self._keys.pop(batch), exec_ns, h2d_ns, round(finished_ns - executed_ns))
