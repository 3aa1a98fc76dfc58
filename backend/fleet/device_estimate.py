"""A device's state at this moment, as far as its last snapshot and the requests sent there since tell.

Snapshots are old when they come: between two of them batches end, waiting requests take their lanes, and new requests
come. An estimate begins with a snapshot, is advanced as time passes, and takes in each request when it was sent; lanes
that become free take what waits by rank, as the device's scheduler does. All times in nanoseconds; instants as the
fleet counts them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, repeat
from math import inf
from typing import NamedTuple

import msgspec

from backend.fleet.in_flight import SentRequest
from backend.fleet.snapshot import MAX_RUNNING, DeviceSnapshot, ModelState, RunningState

ModelKey = tuple[str, str]
"""(name, version)."""
Shown = Callable[[ModelKey], Iterable[SentRequest]]
"""Requests of a model that the router sent to a device and that its snapshot shows, the newest first."""

CLASS_NS = BEST_EFFORT_NS = 1_000_000_000
"""As in `backend.scheduler.waiting`: a class is worth so much time, and a request without a deadline has so much."""
SLOWDOWN_MIN, SLOWDOWN_MAX = 0.5, 20.0
_OTHERS_MAX = 64
"""Rows of others' requests that wait for a model on a device: more are counted, not looked at."""
OVERDUE = 0.1
"""Share of a batch's time that remains at least of one that has not answered yet."""
_ROWS_EXPONENT = 0.5
"""Power of a batch's rows by which its pressure grows, and its sensitivity falls: snapshots have those of one row."""


class LaneBatch(msgspec.Struct, gc=False, eq=False):
    """A batch on a lane. left: until it is done; pressure: on others; suffers: share by which a unit of pressure more
    lengthens it; due: its deadline, inf without one; numbers: of the router's requests in it, with whose
    answers it is done, and not before; least: what is left of it until then.
    """

    left: float
    pressure: float
    suffers: float
    rows: float
    due: float
    numbers: list[int]
    least: float = 0.0


class QueuedBatch(msgspec.Struct, gc=False, eq=False):
    """A batch to be. rank: by which it is served, the lowest first; work: lane time that it will take; latest_due: of
    its requests.
    """

    key: ModelKey
    rank: float
    work: float
    requests: float
    lane: LaneBatch
    batch_max: int
    latest_due: float = inf


class _Member(NamedTuple):
    """A waiting request, or a row of others' ones, whose number is 0."""

    rank: float
    due: float
    rows: int
    number: int


class DeviceEstimate:
    """at: instant of the estimate; lanes: their number; batches: of those that are taken; queue: batches that wait;
    pressure: mean pressure of a batch that runs or waits; overhead: of a lane around each batch.
    """

    def __init__(
        self,
        snapshot: DeviceSnapshot,
        models: Mapping[ModelKey, ModelState],
        at: float,
        shown: Shown,
        *,
        told: bool = True,
    ) -> None:
        """told: of answers; else batches are taken to end when they were predicted to."""
        self._told = told
        self.at, self.overhead = at, float(snapshot.overhead_ns)
        self.lanes = min(snapshot.lanes, MAX_RUNNING)
        by_name = {state.name: state for key, state in models.items() if key[1]}
        waiting = [state for state in snapshot.models if state.waiting_requests]
        self.pressure = _mean_pressure(by_name, snapshot.running, waiting)
        self.queue: list[QueuedBatch] = []
        rest = {(s.name, s.version): iter(shown((s.name, s.version))) for s in snapshot.models}
        for state in waiting:
            self._take_waiting(state, rest[state.name, state.version])
        self.batches = _lane_batches(by_name, snapshot.running, at, rest if told else {})
        for batch in self.batches[self.lanes :]:  # suspended ones take a lane again first
            self.queue.append(QueuedBatch(("", ""), -inf, batch.left, 0.0, batch, 0))
        del self.batches[self.lanes :]
        self._fill_lanes()

    @property
    def waiting(self) -> float:
        """Number of requests that wait."""
        return sum(batch.requests for batch in self.queue)

    def rank(self, batch: QueuedBatch) -> float:
        """Rank of a batch that waits now: one that is late is served after all others."""
        return inf if batch.latest_due < self.at + batch.work else batch.rank

    def advance(self, now: float) -> None:
        """Let time pass: batches end, and what waits takes their lanes."""
        self._fill_lanes()
        while self.at < now:
            first_end = min((batch.left for batch in self.batches if not batch.least), default=inf)
            passed = min(first_end, now - self.at)
            self.at = now if passed >= now - self.at else self.at + passed
            for batch in self.batches:
                batch.left = max(batch.left - passed, batch.least)
            self._end([batch for batch in self.batches if batch.left <= 1.0])
            self._fill_lanes()

    def _fill_lanes(self) -> None:
        while self.queue and len(self.batches) < self.lanes:
            first = min(self.queue, key=self.rank)
            self.queue.remove(first)
            self._start(first.lane, first.work)

    def _start(self, batch: LaneBatch, duration: float) -> None:
        """Put a batch on a lane; the others take longer from now on."""
        batch.left = duration
        batch.least = OVERDUE * duration if batch.numbers and self._told else 0.0
        for other in self.batches:
            other.left *= 1.0 + batch.pressure * other.suffers
        self.batches.append(batch)

    def _end(self, ended: list[LaneBatch]) -> None:
        """Take batches off their lanes; the others are faster from now on."""
        if ended := [batch for batch in self.batches if batch in ended]:
            self.batches = [batch for batch in self.batches if batch not in ended]
            for batch in self.batches:
                batch.left /= 1.0 + batch.suffers * sum(one.pressure for one in ended)

    def add(self, request: SentRequest) -> None:
        """Take in a request that was sent: on a free lane, or it waits."""
        self.advance(request.sent)
        cost = request.cost
        lane = LaneBatch(cost.duration, cost.pressure, cost.suffers, request.rows, request.due, [request.number])
        if len(self.batches) < self.lanes:
            self._start(lane, cost.duration)
            return
        for batch in self.queue:
            if batch.key == request.key and batch.lane.rows + request.rows <= batch.batch_max:
                batch.rank, batch.lane.due = min(batch.rank, request.rank), min(batch.lane.due, request.due)
                batch.latest_due = max(batch.latest_due, request.due)
                batch.work += cost.work
                batch.requests += 1.0
                batch.lane.rows += request.rows
                batch.lane.numbers.append(request.number)
                return
        self.queue.append(QueuedBatch(request.key, request.rank, cost.duration, 1.0, lane, cost.batch_max, request.due))

    def answered(self, number: int, at: float) -> None:
        """Note a request's answer at that instant: its batch ends, unless others that were taken to be in it go on."""
        self.advance(at)
        for batch in [*self.batches, *(waiting.lane for waiting in self.queue)]:
            if number in batch.numbers:
                batch.numbers.remove(number)
                if not batch.numbers:
                    self._end([batch])
                    self.queue = [waiting for waiting in self.queue if waiting.lane is not batch]
                    self._fill_lanes()
                return

    def open_batches(self) -> dict[ModelKey, tuple[int, float]]:
        """Rows and rank of the batch that each model's next request would join."""
        found: dict[ModelKey, tuple[int, float]] = {}
        for batch in self.queue:
            if batch.lane.rows < batch.batch_max:
                found[batch.key] = int(batch.lane.rows), batch.rank
        return found

    def _take_waiting(self, state: ModelState, shown: Iterable[SentRequest]) -> None:
        """Form batches of what a snapshot shows of a model."""
        own = list(islice(shown, state.waiting_requests))
        others = max(0, sum(state.waiting.values()) - sum(request.rows for request in own))
        members = [_Member(request.rank, request.due, request.rows, request.number) for request in own]
        members += islice(self._others_members(state), min(others, _OTHERS_MAX))
        members.sort()
        slowed = slowdown(state, self.pressure * (self.lanes - 1))
        while members:
            rows, taken = members[0].rows, 1
            while taken < len(members) and rows + members[taken].rows <= state.max_batch_size:
                rows += members[taken].rows
                taken += 1
            self._queue_batch(state, members[:taken], rows, slowed)
            del members[:taken]
        if others > _OTHERS_MAX:  # so many that it makes no difference who they are
            self.queue[-1].work *= 1.0 + (others - _OTHERS_MAX) / self.queue[-1].lane.rows
            self.queue[-1].requests += others - _OTHERS_MAX

    def _others_members(self, state: ModelState) -> Iterator[_Member]:
        """Rows that wait of others' requests, as if each had half its time left, the lowest classes first."""
        left = 0.5 * (state.slo_ns or BEST_EFFORT_NS)
        due = inf if state.slo_ns is None else self.at + left
        for priority, rows in sorted(((_class_of(name), rows) for name, rows in state.waiting.items()), reverse=True):
            yield from repeat(_Member(self.at + left + (priority - 1) * CLASS_NS, due, 1, 0), rows)

    def _queue_batch(self, state: ModelState, members: list[_Member], rows: int, slowed: float) -> None:
        lane = LaneBatch(
            0.0,
            pressure_of(state, rows),
            suffers_of(state, self.pressure, rows),
            rows,
            min(member.due for member in members),
            [member.number for member in members if member.number],
        )
        work = solo_ns(state, rows) * slowed + self.overhead
        latest_due, key = max(member.due for member in members), (state.name, state.version)
        requests = float(len(members))
        self.queue.append(QueuedBatch(key, members[0].rank, work, requests, lane, state.max_batch_size, latest_due))


def _class_of(name: str) -> int:
    """Class by its number in decimal; anything else counts as the first."""
    return int(name) if name.isdecimal() and len(name) < 10 else 1


def rank_of(due: float, priority: int, now: float) -> float:
    """Rank of a request, by which a device's scheduler serves it."""
    return (now + BEST_EFFORT_NS if due == inf else due) + (priority - 1) * CLASS_NS


def solo_ns(state: ModelState, rows: int) -> float:
    """Solo latency of a batch: between known sizes on a line, beyond the last in proportion to its rows."""
    sizes = state.solo_ns
    if rows >= sizes[-1][0]:
        return sizes[-1][1] * rows / sizes[-1][0]
    i = bisect_left(sizes, (rows, 0))
    if sizes[i][0] == rows or i == 0:
        return float(sizes[i][1])
    (low, low_ns), (high, high_ns) = sizes[i - 1], sizes[i]
    return low_ns + (high_ns - low_ns) * (rows - low) / (high - low)


def slowdown(state: ModelState, pressure: float, rows: int = 1) -> float:
    """Slowdown of a batch beside others with this sum of pressures."""
    found = state.base + state.sensitivity / _growth(rows) * pressure
    return min(SLOWDOWN_MAX, max(SLOWDOWN_MIN, found))


def pressure_of(state: ModelState, rows: int) -> float:
    """Pressure of a batch on its co-runners."""
    return state.pressure * _growth(rows)


def suffers_of(state: ModelState, pressure: float, rows: int) -> float:
    """Share by which a unit of pressure more lengthens a batch beside others with this sum."""
    return state.sensitivity / _growth(rows) / slowdown(state, pressure, rows)


def _growth(rows: int) -> float:
    """Pressure of a batch of so many rows over that of one row."""
    return float(rows**_ROWS_EXPONENT)


def _mean_pressure(models: Mapping[str, ModelState], running: list[RunningState], waiting: list[ModelState]) -> float:
    """Mean pressure of a batch of those that run and wait; 0 where none does."""
    found = [pressure_of(models[b.model], b.rows) for b in running if b.model in models]
    found += [state.pressure for state in waiting]
    return sum(found) / len(found) if found else 0.0


def _lane_batches(
    models: Mapping[str, ModelState],
    running: list[RunningState],
    at: float,
    shown: Mapping[ModelKey, Iterable[SentRequest]],
) -> list[LaneBatch]:
    total = sum(pressure_of(models[b.model], b.rows) for b in running if b.model in models)
    found = []
    for batch in reversed(running):  # the newest requests are in the newest batch
        state, left = models.get(batch.model), float(batch.remaining_ns)
        pressure = suffers = 0.0
        numbers: list[int] = []
        if state is not None:
            pressure = pressure_of(state, batch.rows)
            suffers = suffers_of(state, total - pressure, batch.rows)
            rest = shown.get((state.name, state.version), ())
            numbers = [request.number for request in islice(rest, batch.rows)]
        due = inf if batch.slack_ns is None else at + left + batch.slack_ns
        least = OVERDUE * left if numbers else 0.0
        found.append(LaneBatch(left, pressure, suffers, float(batch.rows), due, numbers, least))
    return found
