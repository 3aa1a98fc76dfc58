"""A model that takes part: its process, its waiting requests, its latencies as learned. Data, no decisions."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import msgspec

from backend.scheduler.messages import Join, Request
from backend.scheduler.waiting import WaitingQueue
from predictor.features import Own
from predictor.solo_latency import SoloLatency
from predictor.transfers import NO_TRANSFERS, BytesPerRow, TransferTimes
from predictor.workload import Load


@dataclass(slots=True)
class Source:
    """One process of one model: it holds the tensors and runs the batches."""

    id: int
    join: Join
    queue: WaitingQueue
    solo: SoloLatency
    holds: int = 0
    held_request: int | None = None
    arrivals: int = 0
    knee: tuple[int, int] | None = None
    """See `backend.scheduler.policy.knee`: (step of the overhead, rows); None: to be worked out anew."""
    bytes_per_row: BytesPerRow | None = None
    """Sizes of its inputs and outputs; None while no batch of it has moved anything."""
    interference: dict[str, float] = field(default_factory=dict)
    """Nanoseconds that its batches suffered so far, by who caused it; see `backend.scheduler.interference`."""

    def hold(self, head: Request) -> None:
        """Count that the next batch was held; looked at again and again, the same one counts once."""
        self.holds += head.id != self.held_request
        self.held_request = head.id

    def own(self, rows: int, group: int | None) -> Own:
        """A batch of `rows` of this shape, as the predictor takes it. group: None where it is not known."""
        return self.solo.own(rows, group)

    def load(self, rows: int, group: int | None) -> Load:
        """Load of such a batch, with the solo latency as learned."""
        return self.solo.own(rows, group).load

    def learn_solo(self, rows: int, group: int, solo_ns: float, now_ns: int) -> None:
        """Learn from what such a batch took, or would have taken, alone on the device."""
        if self.solo.learn(rows, group, solo_ns, now_ns):
            self.knee = None

    def limit(self, max_batch_size: int) -> None:
        """Let batches grow to at most so many rows from now on."""
        self.join = msgspec.structs.replace(self.join, max_batch_size=max_batch_size)
        self.knee = None

    def solo_transfers(self, rows: int) -> TransferTimes:
        """Times that the inputs and outputs of a batch of `rows` take alone on the links."""
        return NO_TRANSFERS if self.bytes_per_row is None else self.bytes_per_row.transfer_times(rows)

    def measured_solo_ns(self, request: Request) -> int:
        """Latency alone on the device, transfers included, as measured: 0 where its like was not."""
        return self.expected_solo_ns(request) if self.solo.knows(request.group) else 0

    def expected_solo_ns(self, request: Request) -> int:
        """The same, as good as can be told."""
        solo_ns = self.load(request.rows, request.group).solo_ns
        return solo_ns if self.bytes_per_row is None else solo_ns + sum(map(round, self.solo_transfers(request.rows)))

    def late_after_ns(self, request: Request) -> float:
        """Last instant at which it could be launched and make its deadline, were it alone on the device."""
        return inf if request.deadline_ns is None else request.deadline_ns - self.measured_solo_ns(request)
