"""A schedule on the law's virtual GPU: batches with the times from which they may be launched. Emulated.

Whoever searches for schedules keeps a replay as it is at some time, and continues copies of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from copy import copy, deepcopy
from math import inf
from typing import Any, NamedTuple

from backend.load.arrivals import Arrival
from backend.simulation.virtual_gpu import GpuBatch, VirtualGpu
from benchmarks.gpu_emulated.drawn_gpu import COPIES, OVERHEAD_NS, ROW_BYTES_IN, ROW_BYTES_OUT, DrawnGpu


class PlannedBatch(NamedTuple):
    """A batch that is launched at at_ns, or as soon as a lane is free. requests: their places in the plan."""

    at_ns: int
    model: str
    requests: tuple[int, ...]


Schedule = list[PlannedBatch]
"""Ascending by at_ns; of equal ones the first is launched first."""


class Kept(NamedTuple):
    """Deadlines kept; of equal ones the schedule that takes the lanes for less time is better."""

    deadlines: int
    unused_ns: float


class Replay:
    """State of a device that follows a schedule. lanes: how many batches run at once."""

    def __init__(self, drawn: DrawnGpu, plan: Sequence[Arrival], lanes: int, counted_from_s: float = 0.0) -> None:
        self._models, self._plan, self._counted_from_s = drawn.by_name, plan, counted_from_s
        self._gpu = VirtualGpu(drawn.law, COPIES)
        self._running: dict[GpuBatch, PlannedBatch] = {}
        self._reports: list[tuple[int, PlannedBatch, float]] = []
        """Batches that are over, the times at which their lanes are free, and when they came."""
        self._free = lanes
        self.now_ns = 0.0
        self.kept = Kept(0, 0.0)
        self.taken: set[int] = set()
        """Requests of the batches that were launched."""
        self.met: list[int] = []
        self.missed: list[int] = []
        """Requests that were answered in time, and late."""
        self.waiting: Schedule = []
        """Batches that were not launched yet when the last `run` stopped."""

    def copy(self) -> Replay:
        """Copy as of now, to be continued by itself."""
        found, memo = copy(self), dict[int, Any]()
        found._gpu = deepcopy(self._gpu, memo)
        found._running = {memo[id(batch)]: planned for batch, planned in self._running.items()}
        found._reports, found.taken = self._reports.copy(), self.taken.copy()
        found.met, found.missed = self.met.copy(), self.missed.copy()
        return found

    def run(self, schedule: Schedule, until_ns: float) -> Kept:
        """Continue by the batches that were not launched yet, up to that time. Returns what is kept so far."""
        place = 0
        while True:
            planned = schedule[place] if place < len(schedule) else None
            launch_ns = inf if planned is None or not self._free else max(self.now_ns, planned.at_ns)
            report_ns = self._reports[0][0] if self._reports else inf
            step_ns = inf if self._gpu.next_ns is None else self._gpu.next_ns
            first_ns = min(launch_ns, report_ns, step_ns)
            if first_ns >= until_ns:
                self.waiting = schedule[place:]
                self.now_ns = max(self.now_ns, min(until_ns, first_ns))
                return self.kept
            self.now_ns = max(self.now_ns, first_ns)
            if report_ns == first_ns:
                self._report()
            elif step_ns == first_ns:
                self._step()
            else:
                assert planned is not None
                self._launch(planned)
                place += 1

    def _launch(self, planned: PlannedBatch) -> None:
        model, rows = self._models[planned.model], len(planned.requests)
        bytes_in, bytes_out = rows * ROW_BYTES_IN, rows * ROW_BYTES_OUT
        batch = self._gpu.submit(model.demand(rows), float(model.solo_ns(rows)), self.now_ns, bytes_in, bytes_out)
        self._running[batch] = planned
        self.taken.update(planned.requests)
        self._free -= 1

    def _step(self) -> None:
        batch = self._gpu.step()
        if batch is not None:
            report_ns = round(batch.finished_ns) + OVERHEAD_NS
            heapq.heappush(self._reports, (report_ns, self._running.pop(batch), batch.submitted_ns))

    def _report(self) -> None:
        report_ns, planned, since_ns = heapq.heappop(self._reports)
        self._free += 1
        counted = 0
        for i in planned.requests:
            arrival = self._plan[i]
            if report_ns / 1e6 - arrival.at_s * 1e3 <= arrival.slo_ms:
                self.met.append(i)
                counted += arrival.at_s >= self._counted_from_s
            else:
                self.missed.append(i)
        self.kept = Kept(self.kept.deadlines + counted, self.kept.unused_ns - (report_ns - since_ns))
