"""Devices of all endpoints as columns of numbers, their estimates: a pick looks at all that hold a model in one sweep.

All times in nanoseconds; instants are counted from the fleet's first one, so that a float holds them exactly.
"""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import NDArray

from backend.fleet.device_estimate import DeviceEstimate

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]

STALE_NS = 1_000_000_000
"""A device that has sent nothing for so long is gone."""
AT, FRESH_UNTIL, LANES, PRESSURE, WAITING, OVERHEAD, QUEUED = range(7)
"""Rows of `DeviceTable.facts`; see `DeviceEstimate`. FRESH_UNTIL: until when its last snapshot counts; WAITING: number
of requests that wait, per lane; QUEUED: lane time that all that waits will take."""
LEFT, ADDS, SUFFERS, ROWS, RISK, LEAST, ENDS = range(7)
"""Rows of `DeviceTable.running`, a batch per lane; see `LaneBatch`. RISK: ROWS / slack², 0 where it has no deadline or
misses it anyway; ENDS: 1 where it ends by itself, 0 where its answer will tell."""
_SLACK_MIN = 5e6
"""Less slack counts as so much."""
QUEUE_MAX = 24
"""Waiting batches of a device; those beyond count as one of the last one's rank."""


class DeviceTable:
    """Columns by device number. facts: (7, devices); queue: (2, `QUEUE_MAX`, devices), rank and lane
    time of the batches that wait; running: (7, lanes, devices), in the
    order of their ends, free lanes first; a lane that only other devices have is never free.
    """

    def __init__(self) -> None:
        self.count = 0
        self.changes = 0
        """Number of times that a device became fresh, or was lost."""
        self.facts: Floats = np.zeros((7, 0))
        self.queue: Floats = np.zeros((2, QUEUE_MAX, 0))
        self.running: Floats = np.zeros((7, 1, 0))
        self.lane_numbers: Floats = np.ones((1, 1))
        """1, 2, … in a column, for as many lanes as a device has at most."""
        self.queue_used = 1
        """Rows of `queue` that any device has used."""

    def add(self) -> int:
        """Number of a new device, which is not fresh."""
        self.count += 1
        columns = self.facts.shape[-1]
        if self.count > columns:
            more = max(8, columns)
            self.facts = np.pad(self.facts, ((0, 0), (0, more)), constant_values=-inf)
            self.queue = np.pad(self.queue, ((0, 0), (0, 0), (0, more)))
            self.running = np.pad(self.running, ((0, 0), (0, 0), (0, more)))
        return self.count - 1

    def write(self, device: int, estimate: DeviceEstimate) -> None:
        """Replace a device's columns."""
        lanes, batches = estimate.lanes, sorted(estimate.batches, key=lambda batch: batch.left)
        if lanes > self.running.shape[1]:
            before = self.running.shape[1]
            self.running = np.pad(self.running, ((0, 0), (0, lanes - before), (0, 0)))
            self.running[LEFT, before:] = inf
            self.lane_numbers = np.arange(1.0, lanes + 1.0)[:, None]
        rows: list[tuple[float, ...]] = [(0.0,) * 6 + (1.0,)] * (lanes - len(batches))
        for batch in batches:
            slack = batch.due - estimate.at - batch.left
            risk = batch.rows / max(slack, _SLACK_MIN) ** 2 if slack > 0.0 else 0.0
            ends = 0.0 if batch.least else 1.0
            rows.append((batch.left, batch.pressure, batch.suffers, batch.rows, risk, batch.least, ends))
        rows += [(inf, *(0.0,) * 6)] * (self.running.shape[1] - lanes)
        self.running[:, :, device] = np.array(rows).T
        queue = sorted((estimate.rank(batch), batch.work) for batch in estimate.queue)
        if len(queue) > QUEUE_MAX:
            queue = [
                *queue[: QUEUE_MAX - 1],
                (queue[QUEUE_MAX - 1][0], sum(work for _, work in queue[QUEUE_MAX - 1 :])),
            ]
        self.queue[:, :, device] = 0.0
        if queue:
            self.queue_used = max(self.queue_used, len(queue))
            self.queue[:, : len(queue), device] = np.array(queue).T
        facts = self.facts[:, device]
        facts[AT], facts[LANES], facts[PRESSURE] = estimate.at, lanes, estimate.pressure
        facts[WAITING], facts[OVERHEAD] = estimate.waiting / lanes, estimate.overhead
        facts[QUEUED] = sum(work for _, work in queue)

    def refresh(self, device: int, now: float) -> None:
        """Count a device as fresh from now on."""
        if self.facts[FRESH_UNTIL, device] < now:
            self.changes += 1
        self.facts[FRESH_UNTIL, device] = now + STALE_NS

    def lose(self, device: int) -> None:
        """Count a device as stale."""
        self.facts[FRESH_UNTIL, device] = -inf
        self.changes += 1
