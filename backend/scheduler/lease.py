"""The lease: a launch decided in advance, so that a request on an idle device does not wait for a decision.

While nothing waits and nothing runs, whatever comes next is launched at once; the model that ran last may then do so by
itself, on a lane kept free for it, until another one shows up. One lease at a time, on a device of two lanes or more:
the others still find a lane.
"""

from __future__ import annotations

from backend.scheduler.device_state import DeviceState
from backend.scheduler.latency_model import LatencyModel
from backend.scheduler.messages import BatchTimes, Command, Lease, Recall
from backend.scheduler.source import Source

STREAK = 4
"""Batches in a row by one model, each ending on an idle device, before it is offered the lease: recalling one costs a
lane for a moment, so it is for a device that one model has to itself."""
_NEWS = 0.02
"""A lease is renewed once its predicted time is wrong by this share."""


class LeaseDesk:
    """Issues the lease, for whose lane it keeps a reservation on the device. streak: see `STREAK`."""

    def __init__(self, device: DeviceState) -> None:
        self._device = device
        self.streak = STREAK
        self._issued = 0
        self._last, self._in_a_row = 0, 0
        self._recalled = False
        self.current: Lease | None = None

    def of(self, source: int) -> Lease | None:
        """The lease, where this source has it."""
        return self.current if self.current is not None and self.current.source == source else None

    def end(self, source: int) -> None:
        """End the lease of a source that gave it up, returned it, or is gone; it may have none."""
        if self.of(source) is not None:
            self.current = self._device.reserved_lane = None
            self._recalled = False

    def recall(self) -> list[Command]:
        """Recall it, once."""
        if self.current is None or self._recalled:
            return []
        self._recalled = True
        return [Recall(self.current.source, self.current.lease)]

    def offer(self, source: Source, rows: int, group: int, latency: LatencyModel) -> list[Command]:
        """Give the lease to a model whose request has left the device idle, or renew it where times have changed."""
        self._in_a_row = self._in_a_row + 1 if self._last == source.id else 1
        self._last = source.id
        if self._in_a_row < self.streak or self._device.lanes < 2 or self._recalled:
            return []
        times = latency.solo_times(source, source.own(rows, group))
        whole_ns = _whole_ns(times)
        if self.current is not None and abs(whole_ns - _whole_ns(self.current.times)) <= _NEWS * whole_ns:
            return []
        lane = self._device.free_lane() if self.current is None else self.current.lane
        assert lane is not None
        self._issued += 1
        self.current = Lease(source.id, self._issued, source.arrivals, lane, rows, group, times)
        self._device.reserved_lane = lane
        return [self.current]

    def check(self) -> None:
        """Assert that the lane is reserved exactly as long as there is a lease."""
        assert self._device.reserved_lane == (None if self.current is None else self.current.lane)
        assert self.current is None or self._device.lanes >= 2


def _whole_ns(times: BatchTimes) -> int:
    return times.predicted_ns + times.h2d_ns + times.d2h_ns
