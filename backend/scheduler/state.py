"""What the scheduler knows: the models that may launch, the batches that run, the lanes. Data, no decisions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import msgspec

from backend.scheduler.messages import Join, Request
from backend.scheduler.waiting import WaitingQueue
from predictor.features import Own
from predictor.solo_latency import SoloLatency
from predictor.transfers import NO_TRANSFERS, BytesPerRow, TransferTimes
from predictor.workload import Load

BatchKey = tuple[int, int]
"""(source, batch): batches that a process launched by itself are numbered by that process."""


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
    """See `backend.scheduler.policy.knee`: (step of the overhead, rows)."""
    cargo: BytesPerRow | None = None
    """What its batches move; None while none has moved anything."""

    def held(self, head: Request) -> None:
        """The next batch was held; looked at again and again, the same one counts once."""
        self.holds += head.id != self.held_request
        self.held_request = head.id

    def own(self, rows: int, group: int | None) -> Own:
        """What the predictor knows of a batch of `rows` of this shape. group: None where it is not known."""
        return self.solo.own(rows, group)

    def load(self, rows: int, group: int | None) -> Load:
        """The load of such a batch, with the solo latency as learned."""
        return self.solo.own(rows, group).load

    def learn_alone(self, rows: int, group: int, alone_ns: float, now_ns: int) -> None:
        """From what such a batch took, or would have taken, alone on the device."""
        if self.solo.learn(rows, group, alone_ns, now_ns):
            self.knee = None

    def limit(self, max_batch_size: int) -> None:
        """From now on batches grow to at most so many rows."""
        self.join = msgspec.structs.replace(self.join, max_batch_size=max_batch_size)
        self.knee = None

    def work(self, rows: int) -> TransferTimes:
        """What a batch of `rows` is to move."""
        return NO_TRANSFERS if self.cargo is None else self.cargo.transfer_times(rows)

    def alone_ns(self, request: Request) -> int:
        """What it is known to take alone on the device, its transfers included: 0 where its like was not measured."""
        return self.expected_ns(request) if self.solo.knows(request.group) else 0

    def expected_ns(self, request: Request) -> int:
        """The same, as good as can be told."""
        solo_ns = self.load(request.rows, request.group).solo_ns
        return solo_ns if self.cargo is None else solo_ns + sum(map(round, self.work(request.rows)))

    def late_after_ns(self, request: Request) -> float:
        """The last instant at which it could be launched and make its deadline, were it alone on the device."""
        return inf if request.deadline_ns is None else request.deadline_ns - self.alone_ns(request)


class Running(msgspec.Struct, frozen=True):
    """A batch on a lane. deadline_ns: the tightest of its requests; priority: the highest class among them.

    predicted_ns: its execution; transfer_in_ns, transfer_out_ns: of its inputs and outputs, as forecast at its launch.
    group: its requests' shape; None of an adopted one.
    """

    key: BatchKey
    requests: tuple[int, ...]
    own: Own
    lane: int
    priority: int
    deadline_ns: int | None
    launched_ns: int
    predicted_ns: int
    decision: str = "launch"
    transfer_in_ns: int = 0
    transfer_out_ns: int = 0
    group: int | None = None

    @property
    def rows(self) -> int:
        return self.own.batch_size

    @property
    def load(self) -> Load:
        return self.own.load


class Lanes:
    """How many batches occupy each lane; one at most, but for batches adopted after an outage.

    Of a device with n lanes, lane n + i is the one in front of lane i: see `backend.scheduler.device_state`.
    cores: that the lanes are spread over, by turns; None: a lane is no core.
    """

    def __init__(self, count: int, cores: int | None = None) -> None:
        if count < 1:
            raise ValueError(f"a device has at least one lane, got {count}")
        self.count = count
        self._cores = cores if cores is not None and cores < count else None
        self.occupied = [0] * (2 * count)
        self.reserved: int | None = None
        """The lane of the lease."""

    def free(self) -> int | None:
        """A lane that nothing runs on and nobody may launch on by himself; on the core with the fewest batches."""
        found, least = None, 0
        for lane in range(self.count):
            if self.occupied[lane] == 0 == self.occupied[self.count + lane] and lane != self.reserved:
                if self._cores is None:
                    return lane
                crowd = self._crowd(lane % self._cores)
                if found is None or crowd < least:
                    found, least = lane, crowd
        return found

    def _crowd(self, core: int) -> int:
        return sum(batches for lane, batches in enumerate(self.occupied) if self.core(lane) == core)

    def core(self, lane: int) -> int | None:
        """Of a lane, where lanes share cores."""
        return None if self._cores is None else self.place(lane) % self.count % self._cores

    def place(self, lane: int) -> int:
        """Adopted batches may name a lane that this device lacks: the last one then."""
        return lane if lane < 2 * self.count else self.count - 1

    def behind(self, lane: int) -> int | None:
        """The lane that stands still while this one is occupied."""
        place = self.place(lane)
        return place - self.count if place >= self.count else None

    def in_front(self, lane: int) -> int | None:
        """The lane for which this one stands still."""
        place = self.place(lane)
        return place + self.count if place < self.count else None

    def take(self, lane: int) -> None:
        """A batch starts on this lane."""
        self.occupied[self.place(lane)] += 1

    def release(self, lane: int) -> None:
        """A batch left this lane."""
        self.occupied[self.place(lane)] -= 1

    def check(self, lanes: Iterable[int]) -> None:
        """They are occupied by batches on these, and by no others."""
        occupied = [0] * len(self.occupied)
        for lane in lanes:
            occupied[self.place(lane)] += 1
        assert occupied == self.occupied
