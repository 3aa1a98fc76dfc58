"""The device scheduler: an event goes in, commands come out. Everything that decides a launch lives below this file.

Pure: no clock, thread, socket, Triton or device in here. Time is an argument; an illegal event raises
`ProtocolError` and changes nothing. The server, the simulator and the tests run this same object.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from msgspec.structs import replace

from backend.scheduler.backlog import Backlog
from backend.scheduler.device_state import Occupancy, Suffered
from backend.scheduler.launch_forecast import Choice
from backend.scheduler.lease import LeaseDesk
from backend.scheduler.messages import (
    PROTOCOL,
    Adopt,
    Arrive,
    Cancel,
    Command,
    Event,
    Finish,
    Join,
    Launch,
    Limit,
    Ping,
    Preempted,
    Request,
    Return,
    Take,
)
from backend.scheduler.policy import Policy
from backend.scheduler.state import Running, Source
from backend.scheduler.waiting import WaitingQueue
from predictor.bound import UpperBound
from predictor.co_runners import Execution
from predictor.features import CoRunner, Own, Sums, exposure
from predictor.learners.isochrone import Isochrone
from predictor.learners.learner import Forecaster
from predictor.link_sharing import Span
from predictor.solo_latency import SoloLatency
from predictor.transfers import NO_TRANSFERS, BytesPerRow, TransferModel, TransferTimes

_OVERHEAD_WEIGHT = 0.05
"""Of the newest batch in the moving average of the time around an execution."""
_MORE_OVERHEAD_NS = 10_000_000
"""Above the average counts as so much: else one long pause would make every deadline look hopeless for a while."""
_MAX_SLOWDOWN = 20.0
"""What the predictor is taught at most."""
_MAX_WAITING = 100_000
"""Per model: beyond it a process that ignores its own `max_queue_size` is refused."""
_MAX_ROWS = 2**31


class ProtocolError(Exception):
    """An event that cannot be: it names what was wrong. The state is as before."""


Observer = Callable[[Source, Running, Finish, list[CoRunner]], None]
"""Told of each batch that ended well: whose it was, the batch, with its solo latency as known now, what it took, who
ran beside its execution."""


class _Ended(NamedTuple):
    """A batch that the predictor is to learn from. sums: its neighbours' contributions, exactly; None: see `stay`."""

    own: Own
    stay: Execution
    sums: Sums | None
    slowdown: float


class Scheduler:
    """All state of one device. `lanes`: how many batches may run at once; predictor, bound, transfers: what is known
    already; cores: that the lanes are spread over, None where a lane is no core.

    A *source* is one model's process, numbered by the caller; its first event is `Join`.
    """

    def __init__(
        self,
        lanes: int,
        observer: Observer | None = None,
        predictor: Forecaster | None = None,
        bound: UpperBound | None = None,
        policy: type[Policy] = Policy,
        transfers: TransferModel | None = None,
        cores: int | None = None,
    ) -> None:
        self.occupancy = Occupancy(lanes, cores)
        self.running, self.lanes = self.occupancy.running, self.occupancy.lanes
        self.colocation, self.progress = self.occupancy.colocation, self.occupancy.progress
        self.leases = LeaseDesk(self.lanes)
        self.sources: dict[int, Source] = {}
        self._backlog = Backlog()
        self.policy = policy(predictor or Isochrone(), bound or UpperBound())
        self.transfers = transfers or TransferModel()
        self._observer = observer
        self._ended: list[_Ended] = []
        self._revision = self.policy.predictor.revision
        self._now_ns = 0
        self._batches = 0

    def handle(self, source: int, event: Event, now_ns: int) -> list[Command]:
        """Take one event of `source` and return what is to be done, in order."""
        if now_ns < self._now_ns:
            raise ProtocolError(f"time went back from {self._now_ns} to {now_ns} ns")
        ended: Running | None = None
        stand: list[Command] = []
        match event:
            case Join():
                self._join(source, event, now_ns)
            case Limit():
                self._limit(self._source(source), event)
            case Arrive():
                self._arrive(self._source(source), event.requests)
            case Cancel():
                self._cancel(self._source(source), event.requests)
            case Finish():
                ended = self._finish(self._source(source), event, now_ns)
            case Adopt():
                stand = self._adopt(self._source(source), event, now_ns)
            case Take():
                self._take(self._source(source), event, now_ns)
            case Return():
                self._return(self._source(source), event)
            case Ping():
                return []
        self._now_ns = now_ns
        self.colocation.advance(now_ns)
        return stand + self._decide(now_ns, ended)

    def leave(self, source: int, now_ns: int) -> list[Command]:
        """The process is gone: its requests and batches are forgotten, its lanes are free."""
        now_ns = max(now_ns, self._now_ns)
        self._now_ns = now_ns
        self.leases.end(source)
        self._backlog.forget(source)
        if self.sources.pop(source, None) is not None:
            for key in [k for k in self.running if k[0] == source]:
                self.occupancy.end(key, now_ns)
        self.colocation.advance(now_ns)
        return self._decide(now_ns)

    @property
    def reject_after_ns(self) -> float:
        """Until then no request that waits is to be rejected for being late; inf: none ever."""
        return self._backlog.reject_after_ns

    def reject(self, now_ns: int) -> list[Command]:
        """What became late since the last event, where that is rejected: to be asked after `reject_after_ns`."""
        self._now_ns = max(now_ns, self._now_ns)
        return list(self._backlog.find_late(self._now_ns))

    def learn(self) -> int:
        """Teach the predictor what ended since the last call, and how many batches that were.

        Apart from `handle`, so that no launch waits for it.
        """
        ended, self._ended = self._ended, []
        predictor = self.policy.predictor
        for own, stay, sums, slowdown in ended:
            predictor.learn_one(own, exposure(own, stay.co_runners(), sums), slowdown)
        if self.transfers.pending:  # whatever began before the oldest that runs was launched has ended, and told
            self.transfers.learn_pending(min((batch.launched_ns for batch in self.running.values()), default=inf))
        if predictor.revision != self._revision:
            self._revision = predictor.revision
            self.policy.renew()
            self.progress.renew(lambda key: self.policy.response(key[0], self.running[key].own))
        return len(ended)

    # Events

    def _source(self, source: int) -> Source:
        if source not in self.sources:
            raise ProtocolError(f"source {source} has not joined")
        return self.sources[source]

    def _join(self, source: int, event: Join, now_ns: int) -> None:
        if source in self.sources:
            raise ProtocolError(f"source {source} has joined already")
        if event.protocol != PROTOCOL:
            raise ProtocolError(f"protocol {event.protocol} is not spoken here, only {PROTOCOL}")
        lanes = self.lanes.count
        if event.lanes not in (None, lanes):
            raise ProtocolError(
                f"device_lanes is {event.lanes} for model '{event.model}', but this device's scheduler runs {lanes}; "
                "give every model on the device the same value"
            )
        queue = WaitingQueue(in_order=not event.interference_aware)
        solo = SoloLatency(event.model, event.profile, event.profiled_group, now_ns)
        self.sources[source] = Source(source, event, queue, solo)

    def _limit(self, source: Source, event: Limit) -> None:
        if not 0 <= event.max_batch_size < _MAX_ROWS:
            raise ProtocolError(f"source {source.id} limits its batches to {event.max_batch_size} rows")
        source.limit(event.max_batch_size)

    def _arrive(self, source: Source, requests: tuple[Request, ...]) -> None:
        self._check_new(source, requests)
        if len(source.queue) + len(requests) > _MAX_WAITING:
            raise ProtocolError(f"source {source.id} has more than {_MAX_WAITING} requests waiting")
        self.leases.end(source.id)
        source.arrivals += 1
        for r in requests:
            self._backlog.add(source, r)

    def _check_new(self, source: Source, requests: tuple[Request, ...]) -> None:
        busy = {r for batch in self.running.values() if batch.key[0] == source.id for r in batch.requests}
        seen: set[int] = set()
        for r in requests:
            if r.id in source.queue or r.id in busy or r.id in seen:
                raise ProtocolError(f"request {r.id} of source {source.id} is here already")
            if not 1 <= r.rows < _MAX_ROWS or r.priority < 1:
                raise ProtocolError(f"request {r.id} has {r.rows} rows and class {r.priority}")
            seen.add(r.id)

    def _cancel(self, source: Source, requests: tuple[int, ...]) -> None:
        for request in requests:
            if request in source.queue:  # launched meanwhile: too late
                self._backlog.remove(source, request)

    def _finish(self, source: Source, event: Finish, now_ns: int) -> Running:
        key = (source.id, event.batch)
        if key not in self.running:
            raise ProtocolError(f"batch {event.batch} of source {source.id} does not run")
        if event.exec_ns is not None and event.exec_ns <= 0:
            raise ProtocolError(f"batch {event.batch} of source {source.id} took {event.exec_ns} ns")
        if min(event.transfer_in_ns, event.transfer_out_ns, event.bytes_in, event.bytes_out) < 0:
            raise ProtocolError(f"batch {event.batch} of source {source.id} moved less than nothing: {event}")
        batch, suffered = self.occupancy.end(key, now_ns)
        # What an adopted one suffered is not known either.
        if event.exec_ns is not None and batch.requests and suffered is not None:
            sums: Sums | None
            stay, sums = suffered
            if event.transfer_in_ns or event.transfer_out_ns:
                stay, sums = self._note_transfers(source, batch, event, stay), None
            around_ns = now_ns - batch.launched_ns - event.exec_ns - event.transfer_in_ns - event.transfer_out_ns
            if not source.solo.guesses(batch.group):  # what a guess was wrong by is no batch's fault
                self.policy.bound.learn_one(event.exec_ns / batch.predicted_ns)
            batch = self._learn_alone(source, batch, suffered, event.exec_ns, now_ns, alone=stay.solo)
            self._note(batch, stay, sums, event.exec_ns, around_ns)
            if self._observer is not None:
                self._observer(source, batch, event, stay.co_runners())
        return batch

    def _learn_alone(
        self, source: Source, batch: Running, suffered: Suffered, exec_ns: int, now_ns: int, *, alone: bool
    ) -> Running:
        """What it took alone, or would have: from a batch that had company only as far as nothing better is known.

        The batch, with its solo latency as known then: what is left of what it took is its neighbours' doing.
        """
        rows, group = batch.rows, batch.group
        assert group is not None
        if alone:
            source.learn_alone(rows, group, exec_ns, now_ns)
        elif source.solo.learns_from_co_run(rows, group, exec_ns):
            slowdown = self.policy.response(source.id, batch.own).slowdown(suffered.sums, suffered.stay.core_co_runners)
            source.learn_alone(rows, group, exec_ns / max(1.0, slowdown), now_ns)
        own = source.own(rows, group)
        return batch if own is batch.own else replace(batch, own=own)

    def _adopt(self, source: Source, event: Adopt, now_ns: int) -> list[Command]:
        seen: set[int] = set()
        for b in event.batches:
            if b.batch >= 0 or b.batch in seen or (source.id, b.batch) in self.running or b.rows < 1 or b.lane < 0:
                raise ProtocolError(f"batch {b.batch} of source {source.id} cannot be adopted")
            seen.add(b.batch)
        stand: list[Command] = []
        for b in event.batches:
            own = source.own(b.rows, None)
            stand += self._start(Running((source.id, b.batch), (), own, b.lane, 1, None, now_ns, own.load.solo_ns))
        return stand

    def _take(self, source: Source, event: Take, now_ns: int) -> None:
        self._check_new(source, (event.request,))
        lease, request = self.leases.of(source.id), event.request
        if lease is None or (lease.rows, lease.group) != (request.rows, request.group):
            raise ProtocolError(f"source {source.id} has no lease for {request.rows} rows of group {request.group}")
        if event.batch >= 0 or source.queue or any(key[0] == source.id for key in self.running):
            raise ProtocolError(f"batch {event.batch} of source {source.id} cannot be launched by its lease")
        self._start(
            Running(
                (source.id, event.batch),
                (request.id,),
                source.own(request.rows, request.group),
                lease.lane,
                request.priority,
                request.deadline_ns,
                now_ns,
                lease.predicted_ns,
                "lease",
                lease.transfer_in_ns,
                lease.transfer_out_ns,
                request.group,
            ),
            source.work(request.rows),
        )

    def _return(self, source: Source, event: Return) -> None:
        lease = self.leases.of(source.id)
        if lease is None or lease.lease != event.lease:
            raise ProtocolError(f"source {source.id} returns lease {event.lease}, which it has not")
        self.leases.end(source.id)

    def _note_transfers(self, source: Source, batch: Running, event: Finish, stay: Execution) -> Execution:
        """Its inputs came first and its outputs last: what was between is its execution's."""
        if source.cargo is None:
            source.cargo = BytesPerRow(self.transfers, batch.rows, event.bytes_in, event.bytes_out)
        else:
            source.cargo.learn_one(batch.rows, event.bytes_in, event.bytes_out)
        begin_ns, end_ns = stay.since_ns, stay.until_ns
        arrived_ns = min(end_ns, begin_ns + event.transfer_in_ns)
        left_ns = max(begin_ns, end_ns - event.transfer_out_ns)
        self.transfers.h2d.record(event.bytes_in, Span(begin_ns, arrived_ns))
        self.transfers.d2h.record(event.bytes_out, Span(left_ns, end_ns))
        return stay.between(arrived_ns, left_ns)

    def _note(self, batch: Running, stay: Execution, sums: Sums | None, exec_ns: int, around_ns: int) -> None:
        policy = self.policy
        # A process that was stopped for a while tells nothing about interference.
        self._ended.append(_Ended(batch.own, stay, sums, min(exec_ns / batch.load.solo_ns, _MAX_SLOWDOWN)))
        more_ns = min(around_ns - policy.overhead_ns, _MORE_OVERHEAD_NS)  # nor about what comes around executions
        policy.overhead_ns = max(0.0, policy.overhead_ns + _OVERHEAD_WEIGHT * more_ns)

    # Launches

    def _decide(self, now_ns: int, ended: Running | None = None) -> list[Command]:
        commands: list[Command] = list(self._backlog.find_late(now_ns))
        while self._backlog and (following := self._next(now_ns)) is not None:
            commands += self._launch(*following, now_ns)
        return commands + self._lease(ended)

    def _next(self, now_ns: int) -> tuple[Choice, int] | None:
        """A launch and its lane: a free one, or, where every lane is taken, one in front of another."""
        self.progress.advance(now_ns)
        if (lane := self.lanes.free()) is not None:
            choice = self.policy.choose(self._backlog.sources, self.occupancy, lane, now_ns)
            return None if choice is None else (choice, lane)
        if self.lanes.reserved is not None:
            return None
        return self.policy.overtake(self._backlog.sources, self.sources, self.occupancy, now_ns)

    def _lease(self, ended: Running | None) -> list[Command]:
        """A lease is for a model that has the device to itself."""
        lease = self.leases.current
        if lease is not None and (self._backlog or any(key[0] != lease.source for key in self.running)):
            return self.leases.recall()
        if ended is None or self.running or len(ended.requests) != 1:
            return []
        assert ended.group is not None
        return self.leases.offer(self.sources[ended.key[0]], ended.rows, ended.group, self.policy)

    def _launch(self, choice: Choice, lane: int, now_ns: int) -> list[Command]:
        self._batches += 1
        source, requests = choice.source, choice.requests
        for r in requests:
            self._backlog.remove(source, r.id)
        deadlines = [r.deadline_ns for r in requests if r.deadline_ns is not None]
        batch = Running(
            key=(source.id, self._batches),
            requests=tuple(r.id for r in requests),
            own=choice.own,
            lane=lane,
            priority=min(r.priority for r in requests),
            deadline_ns=min(deadlines, default=None),
            launched_ns=now_ns,
            predicted_ns=choice.predicted_ns,
            decision=choice.decision,
            transfer_in_ns=choice.transfer_in_ns,
            transfer_out_ns=choice.transfer_out_ns,
            group=requests[0].group,
        )
        preempted = self._start(batch, source.work(batch.rows))
        holds, source.holds = source.holds, 0
        bound_ns = round(choice.predicted_ns * self.policy.bound.multiplier)
        launch = Launch(
            source.id,
            self._batches,
            lane,
            batch.requests,
            choice.load.solo_ns,
            choice.predicted_ns,
            bound_ns,
            choice.decision,
            holds,
            choice.transfer_in_ns,
            choice.transfer_out_ns,
        )
        return [*preempted, launch]

    def _start(self, batch: Running, work: TransferTimes = NO_TRANSFERS) -> list[Command]:
        response = self.policy.response(batch.key[0], batch.own)
        return [Preempted(*key) for key in self.occupancy.start(batch, response, work)]

    def check_invariants(self) -> None:
        """What holds between any two events; called by every test's teardown."""
        self.occupancy.check()
        for batch in self.running.values():
            queue = self.sources[batch.key[0]].queue
            assert not any(request in queue for request in batch.requests), batch
        self.leases.check()
        self._backlog.check(self.sources)
        assert self.running or not self._backlog, "an idle device holds"
