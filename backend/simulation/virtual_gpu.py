"""A GPU in virtual time: batches slow each other down by `GpuLaw`, and their copies wait in line for their direction.

A batch's inputs are copied in, it runs beside whatever else runs at that moment, and its outputs are copied out. Each
direction serves one copy at a time, first in, first out. Pure: time is an argument, in nanoseconds, and never goes
back, chance comes from the law's seed; an emulated GPU in real time (`backend.engines.emulated`) steps the same object
when its clock says so.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp, inf
from random import Random
from typing import NamedTuple

from backend.simulation.gpu_law import GpuLaw, KernelDemand, PairTerms

BOTH_WAYS = 0.72
"""Rate of a copy while the other direction is busy, as a share of its rate alone (PCIe gen 3 and 4)."""


@dataclass(frozen=True)
class CopyEngines:
    """Rate of a copy alone on its link in bytes per nanosecond, which are GB/s, and what each copy takes beside it."""

    bytes_per_ns: float = inf
    latency_ns: float = 0.0

    def alone_ns(self, size_bytes: int) -> float:
        """Duration of a copy while the other direction is idle; nothing for no bytes."""
        return self.latency_ns + size_bytes / self.bytes_per_ns if size_bytes else 0.0


class GpuTimes(NamedTuple):
    """Times at which a batch came, its run began and ended, and its outputs were out."""

    submitted_ns: float
    started_ns: float
    executed_ns: float
    finished_ns: float


@dataclass(slots=True, eq=False)
class GpuBatch:
    """A batch under way. left_ns: of its present stage, while nothing else slows it down; slowdown: at present.

    luck: its own draw from a normal distribution, see `GpuLaw.slowdown`; others: terms of the others that run in
    its slowdown, in their order.
    """

    demand: KernelDemand
    solo_ns: float
    copy_in_ns: float
    copy_out_ns: float
    submitted_ns: float
    luck: float = 0.0
    started_ns: float = 0.0
    executed_ns: float = 0.0
    finished_ns: float = 0.0
    left_ns: float = 0.0
    slowdown: float = 1.0
    others: list[PairTerms] = field(default_factory=list)

    @property
    def times(self) -> GpuTimes:
        """Once it is finished."""
        return GpuTimes(self.submitted_ns, self.started_ns, self.executed_ns, self.finished_ns)


class VirtualGpu:
    """Batches under way. `submit` and `step` as time passes: `step` at `next_ns`, before any later `submit`."""

    def __init__(self, law: GpuLaw, copy_engines: CopyEngines | None = None, chance: Random | None = None) -> None:
        """chance: of noise and tails; by default from the law's seed."""
        self._law, self._copy_engines = law, copy_engines or CopyEngines()
        self._running: list[GpuBatch] = []
        self._h2d, self._d2h = deque[GpuBatch](), deque[GpuBatch]()
        self._chance = chance or Random(law.seed)
        self._now_ns = 0.0
        self._next: tuple[float, GpuBatch] | None = None

    @property
    def next_ns(self) -> float | None:
        """Earliest end of a batch's present stage, if no other batch comes; None where there is none."""
        return None if self._next is None else self._next[0]

    def under_way(self, now_ns: float) -> list[tuple[GpuBatch, float]]:
        """Batches that are not finished, and how long each still takes if nothing changes; copies out left out."""
        passed_ns = now_ns - self._now_ns
        found = [
            (batch, max(0.0, batch.left_ns - passed_ns / batch.slowdown) * batch.slowdown) for batch in self._running
        ]
        found += [(batch, batch.left_ns + batch.solo_ns) for batch in self._h2d]
        return found + [(batch, batch.left_ns) for batch in self._d2h]

    @property
    def next_finishes(self) -> bool:
        """True where that stage is a batch's last."""
        if self._next is None:
            return False
        batch = self._next[1]
        return bool(self._d2h and batch is self._d2h[0]) or (batch in self._running and not batch.copy_out_ns)

    def submit(
        self, demand: KernelDemand, solo_ns: float, now_ns: float, bytes_in: int = 0, bytes_out: int = 0
    ) -> GpuBatch:
        """Begin a batch. No step is due before `now_ns`."""
        assert self._next is None or now_ns <= self._next[0], "a step is due before"
        self._advance(now_ns)
        copies = self._copy_engines
        run_ns = solo_ns * exp(self._law.effects.noise_sd * self._chance.gauss())
        copy_ns = copies.alone_ns(bytes_in), copies.alone_ns(bytes_out)
        batch = GpuBatch(demand, run_ns, *copy_ns, now_ns, self._chance.gauss())
        if batch.copy_in_ns:
            batch.left_ns = batch.copy_in_ns
            self._h2d.append(batch)
        else:
            self._start(batch)
        self._forecast()
        return batch

    def step(self) -> GpuBatch | None:
        """Let the stage that is due at `next_ns` end. Returns the batch that is finished by it, if one is."""
        assert self._next is not None, "nothing is under way"
        now_ns, batch = self._next
        self._advance(now_ns)
        finished = None
        if self._h2d and batch is self._h2d[0]:
            self._h2d.popleft()
            self._start(batch)
        elif self._d2h and batch is self._d2h[0]:
            self._d2h.popleft()
            finished = batch
        else:
            self._end(batch)
            batch.executed_ns = now_ns
            if batch.copy_out_ns:
                batch.left_ns = batch.copy_out_ns
                self._d2h.append(batch)
            else:
                finished = batch
        if finished is not None:
            finished.finished_ns = now_ns
        self._forecast()
        return finished

    def _start(self, batch: GpuBatch) -> None:
        batch.started_ns, batch.left_ns = self._now_ns, batch.solo_ns
        for other in self._running:
            other.others.append(self._law.pair_terms(other.demand, batch.demand))
            batch.others.append(self._law.pair_terms(batch.demand, other.demand))
        self._running.append(batch)
        self._update_slowdowns()

    def _end(self, batch: GpuBatch) -> None:
        ended = self._running.index(batch)
        del self._running[ended]
        for index, other in enumerate(self._running):
            del other.others[ended - (index < ended)]  # it is not among its own others
        self._update_slowdowns()

    def _update_slowdowns(self) -> None:
        """Each running batch's slowdown beside the others that run now."""
        found = self._running
        slowdowns = self._law.slowdowns([b.demand for b in found], [b.others for b in found], [b.luck for b in found])
        for batch, slowdown in zip(found, slowdowns, strict=True):
            batch.slowdown = slowdown

    def _copy_slowdown(self) -> float:
        return 1.0 / BOTH_WAYS if self._h2d and self._d2h else 1.0

    def _advance(self, now_ns: float) -> None:
        passed_ns = now_ns - self._now_ns
        self._now_ns = now_ns
        if passed_ns <= 0.0:
            return
        for batch in self._running:
            batch.left_ns -= passed_ns / batch.slowdown
        for queue in (self._h2d, self._d2h):
            if queue:
                queue[0].left_ns -= passed_ns / self._copy_slowdown()

    def _forecast(self) -> None:
        """The earliest end of a stage; of equal ones the first to be found, copies first."""
        copying = self._copy_slowdown()
        first: tuple[float, GpuBatch] | None = None
        for queue in (self._h2d, self._d2h):
            if queue:
                first = _earlier(first, max(0.0, queue[0].left_ns) * copying, queue[0])
        for batch in self._running:
            first = _earlier(first, max(0.0, batch.left_ns) * batch.slowdown, batch)
        self._next = None if first is None else (self._now_ns + first[0], first[1])


def _earlier(first: tuple[float, GpuBatch] | None, in_ns: float, batch: GpuBatch) -> tuple[float, GpuBatch]:
    return (in_ns, batch) if first is None or in_ns < first[0] else first
