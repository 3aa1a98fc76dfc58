"""The lease: a launch decided in advance, so that a request on an idle device does not wait for a decision.

While nothing waits and nothing runs, whatever comes next is launched at once; the model that ran last may then do so by
itself, on a lane kept free for it, until another one shows up. One lease at a time, on a device of two lanes or more:
the others still find a lane.
"""

from __future__ import annotations

from backend.scheduler.latency_model import LatencyModel
from backend.scheduler.messages import Command, Lease, Recall
from backend.scheduler.state import Lanes, Source

STREAK = 4
"""Batches in a row by one model, each ending on an idle device, before it is offered the lease: recalling one costs a
lane for a moment, so it is for a device that one model has to itself."""
_NEWS = 0.02
"""A lease is renewed once its predicted time is wrong by this share."""


class LeaseDesk:
    """Who may launch without asking. `lanes` keeps the lane free. streak: see `STREAK`."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self.streak = STREAK
        self._issued = 0
        self._last, self._in_a_row = 0, 0
        self._recalled = False
        self.current: Lease | None = None

    def of(self, source: int) -> Lease | None:
        """The lease, where this source has it."""
        return self.current if self.current is not None and self.current.source == source else None

    def end(self, source: int) -> None:
        """The source gave up what it may have had, returned it, or is gone."""
        if self.of(source) is not None:
            self.current = self._lanes.reserved = None
            self._recalled = False

    def recall(self) -> list[Command]:
        """Ask for it back, once."""
        if self.current is None or self._recalled:
            return []
        self._recalled = True
        return [Recall(self.current.source, self.current.lease)]

    def offer(self, source: Source, rows: int, group: int, latency: LatencyModel) -> list[Command]:
        """Such a request left the device idle: give its model the lease, or renew it where times have changed."""
        self._in_a_row = self._in_a_row + 1 if self._last == source.id else 1
        self._last = source.id
        if self._in_a_row < self.streak or self._lanes.count < 2 or self._recalled:
            return []
        own, (in_ns, out_ns) = source.own(rows, group), map(round, source.work(rows))
        predicted_ns = latency.predicted_solo_ns(source, own)
        whole_ns = predicted_ns + in_ns + out_ns
        if self.current is not None and abs(whole_ns - _whole_ns(self.current)) <= _NEWS * whole_ns:
            return []
        lane = self._lanes.free() if self.current is None else self.current.lane
        assert lane is not None
        self._issued += 1
        bound_ns = round(predicted_ns * latency.bound.multiplier)
        solo_ns = own.load.solo_ns
        times = (solo_ns, predicted_ns, bound_ns, in_ns, out_ns)
        self.current = Lease(source.id, self._issued, source.arrivals, lane, rows, group, *times)
        self._lanes.reserved = lane
        return [self.current]

    def check(self) -> None:
        """The lane is kept free exactly as long as there is a lease."""
        assert self._lanes.reserved == (None if self.current is None else self.current.lane)
        assert self.current is None or self._lanes.count >= 2


def _whole_ns(lease: Lease) -> int:
    return lease.predicted_ns + lease.transfer_in_ns + lease.transfer_out_ns
