"""The device scheduler: an event goes in, commands come out. Everything that decides a launch lives below this file.

Pure: no clock, thread, socket, Triton or device in here. Time is an argument; an illegal event raises
`ProtocolError` and changes nothing. The server, the simulator and the tests run this same object.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from backend.scheduler.backlog import Backlog
from backend.scheduler.class_prices import CLASS_COST
from backend.scheduler.device_state import DeviceState
from backend.scheduler.forecast.launch_forecast import Choice
from backend.scheduler.latency_model import LatencyModel
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
from backend.scheduler.running_batch import RunningBatch
from backend.scheduler.source import Source
from backend.scheduler.waiting import WaitingQueue
from predictor.bound import UpperBound
from predictor.features import CoRunner
from predictor.learners.isochrone import Isochrone
from predictor.learners.learner import Forecaster
from predictor.solo_latency import SoloLatency
from predictor.transfers import NO_TRANSFERS, TransferModel

_MAX_WAITING = 100_000
"""Per model: beyond it a process that ignores its own `max_queue_size` is refused."""
_MAX_ROWS = 2**31


class ProtocolError(Exception):
    """An event that cannot be: it names what was wrong. The state is as before."""


Observer = Callable[[Source, RunningBatch, Finish, list[CoRunner]], None]
"""Called with each batch that ended well: its model, the batch, with its solo latency as known now, its measured times,
its execution's co-runners."""


class Scheduler:
    """All state of one device. `lanes`: how many batches may run at once; predictor, bound, transfers: as learned so
    far; cores: that the lanes are spread over, None where a lane is no core; class_cost: see `ClassPrices`.

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
        class_cost: float = CLASS_COST,
    ) -> None:
        self.device = DeviceState(lanes, cores)
        self.leases = LeaseDesk(self.device)
        self.sources: dict[int, Source] = {}
        self._backlog = Backlog()
        self.latency = LatencyModel(predictor or Isochrone(), bound or UpperBound(), transfers or TransferModel())
        self.policy = policy(self.latency)
        self.policy.prices.allowed = class_cost
        self._observer = observer
        self._now_ns = 0
        self._batches = 0

    def __getstate__(self) -> dict[str, object]:
        """A copy of it observes nothing."""
        return {**self.__dict__, "_observer": None}

    def handle(self, source: int, event: Event, now_ns: int) -> list[Command]:
        """Take one event of `source` and return the commands that follow, in order."""
        if now_ns < self._now_ns:
            raise ProtocolError(f"time went back from {self._now_ns} to {now_ns} ns")
        ended: RunningBatch | None = None
        suspended: list[Command] = []
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
                suspended = self._adopt(self._source(source), event, now_ns)
            case Take():
                self._take(self._source(source), event, now_ns)
            case Return():
                self._return(self._source(source), event)
            case Ping():
                return []
        self._now_ns = now_ns
        return suspended + self._decide(now_ns, ended)

    def leave(self, source: int, now_ns: int) -> list[Command]:
        """Forget the requests and batches of a process that is gone; its lanes are free."""
        now_ns = max(now_ns, self._now_ns)
        self._now_ns = now_ns
        self.leases.end(source)
        self._backlog.forget(source)
        self.policy.arrivals.forget(source)
        if self.sources.pop(source, None) is not None:
            for key in [k for k in self.device.running if k[0] == source]:
                self.device.end(key, now_ns)
        return self._decide(now_ns)

    def wake_after_ns(self, reject_within_ns: float = 0.0) -> float:
        """Instant after which `wake` has something to decide though nothing happened: requests to reject, or an idle
        device that was held for long enough; inf: never.

        reject_within_ns: so long a rejection may wait for an event.
        """
        return min(self._backlog.reject_after_ns + reject_within_ns, self.policy.idle_until_ns)

    def wake(self, now_ns: int) -> list[Command]:
        """Decide anew, after `wake_after_ns`."""
        self._now_ns = max(now_ns, self._now_ns)
        return self._decide(self._now_ns)

    def learn(self) -> int:
        """Train the predictor with the batches that ended since the last call, and return how many they were.

        Apart from `handle`, so that no launch waits for it.
        """
        oldest = next(iter(self.device.batches), None)
        trained = self.latency.train(inf if oldest is None else oldest.launched_ns)
        if self.latency.renew():
            self.device.update_functions(self.latency.slowdown_function, self.latency.predictor.contribution)
            self.policy.arrivals.renew()
        return trained

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
        lanes = self.device.lanes
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
            self.policy.arrivals.add(source, r)

    def _check_new(self, source: Source, requests: tuple[Request, ...]) -> None:
        busy = {r for batch in self.device.batches if batch.key[0] == source.id for r in batch.requests}
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

    def _finish(self, source: Source, event: Finish, now_ns: int) -> RunningBatch:
        key = (source.id, event.batch)
        if key not in self.device.running:
            raise ProtocolError(f"batch {event.batch} of source {source.id} does not run")
        if event.exec_ns is not None and event.exec_ns <= 0:
            raise ProtocolError(f"batch {event.batch} of source {source.id} took {event.exec_ns} ns")
        if min(event.h2d_ns, event.d2h_ns, event.h2d_bytes, event.d2h_bytes) < 0:
            raise ProtocolError(f"batch {event.batch} of source {source.id} moved less than nothing: {event}")
        batch, co_run = self.device.end(key, now_ns)
        self._charge_lower_classes(batch, now_ns)
        if event.exec_ns is not None and batch.requests and co_run is not None:  # when an adopted one began is unknown
            stay = self.latency.observe(source, batch, event, co_run, now_ns)
            if self._observer is not None and not source.join.loading:
                self._observer(source, batch, event, stay.co_runners())
        return batch

    def _charge_lower_classes(self, batch: RunningBatch, now_ns: int) -> None:
        """Learn what lower classes cost a batch that ended."""
        count, ran_ns = len(batch.requests), max(1, now_ns - batch.launched_ns)
        late_ns, lost_ns = now_ns - batch.deadline_ns, max(0, ran_ns - batch.load.solo_ns)
        by_lower_ns = lost_ns * min(1.0, batch.beside_lower_ns / ran_ns)
        share = 0.0 if late_ns <= 0 else by_lower_ns / (by_lower_ns + late_ns)
        self.policy.prices.observe(batch.priority, count, count * share)

    def _find_late(self, now_ns: int) -> list[Command]:
        """Set aside, or reject, what has become late, and learn what lower classes cost those rejected."""
        rejections = self._backlog.find_late(now_ns)
        for _, priority in rejections:
            self.policy.prices.observe(priority, 1, self.device.lower_share(priority))
        return [rejection for rejection, _ in rejections]

    def _adopt(self, source: Source, event: Adopt, now_ns: int) -> list[Command]:
        seen: set[int] = set()
        for b in event.batches:
            known = b.batch in seen or (source.id, b.batch) in self.device.running
            if known or b.batch >= 0 or not 1 <= b.rows < _MAX_ROWS or b.lane < 0:
                raise ProtocolError(f"batch {b.batch} of source {source.id} cannot be adopted")
            seen.add(b.batch)
        commands: list[Command] = []
        for b in event.batches:
            own, lane = source.own(b.rows, None), min(b.lane, self.device.lanes - 1)
            choice = Choice(source, (), own, self.latency.times(own, own.load.solo_ns))
            commands += self._start(choice, b.batch, lane, now_ns, preempts=b.preempts and lane == b.lane)
        return commands

    def _take(self, source: Source, event: Take, now_ns: int) -> None:
        self._check_new(source, (event.request,))
        lease, request = self.leases.of(source.id), event.request
        if lease is None or (lease.rows, lease.group) != (request.rows, request.group):
            raise ProtocolError(f"source {source.id} has no lease for {request.rows} rows of group {request.group}")
        if event.batch >= 0 or source.queue or any(key[0] == source.id for key in self.device.running):
            raise ProtocolError(f"batch {event.batch} of source {source.id} cannot be launched by its lease")
        choice = Choice(source, (request,), source.own(request.rows, request.group), lease.times)
        self._start(choice, event.batch, lease.lane, now_ns, leased=True)

    def _return(self, source: Source, event: Return) -> None:
        lease = self.leases.of(source.id)
        if lease is None or lease.lease != event.lease:
            raise ProtocolError(f"source {source.id} returns lease {event.lease}, which it has not")
        self.leases.end(source.id)

    # Launches

    def _decide(self, now_ns: int, ended: RunningBatch | None = None) -> list[Command]:
        commands = self._find_late(now_ns)
        while self._backlog and (following := self._next(now_ns)) is not None:
            commands += self._launch(*following, now_ns)
        if self.device.running or not self._backlog:
            self.policy.idle_until_ns = inf
        return commands + self._offer_lease(ended)

    def _next(self, now_ns: int) -> tuple[Choice, int, bool] | None:
        """The next launch, its lane, and whether it preempts there: only where no lane is free."""
        device = self.device
        device.advance(now_ns)
        if (lane := device.free_lane()) is not None:
            choice = self.policy.choose(self._backlog.sources, device, lane, now_ns)
            return None if choice is None else (choice, lane, False)
        if device.reserved_lane is not None:
            return None
        preemption = self.policy.preempt(self._backlog.sources, self.sources, device, now_ns)
        return None if preemption is None else (preemption.choice, preemption.suspended.lane, True)

    def _launch(self, choice: Choice, lane: int, preempts: bool, now_ns: int) -> list[Command]:
        self._batches += 1
        source, requests = choice.source, choice.requests
        for r in requests:
            self._backlog.remove(source, r.id)
        suspended = self._start(choice, self._batches, lane, now_ns, preempts=preempts)
        holds, source.holds = source.holds, 0
        ids = self.device.running[source.id, self._batches].requests
        launch = Launch(source.id, self._batches, lane, preempts, ids, choice.times, choice.decision, holds)
        return [*suspended, launch]

    def _start(
        self, choice: Choice, batch: int, lane: int, now_ns: int, *, preempts: bool = False, leased: bool = False
    ) -> list[Command]:
        """Note a batch as running. choice: without requests where it is adopted."""
        source, requests, own, deadline_ns = choice.source, choice.requests, choice.own, choice.deadline_ns
        running = RunningBatch(
            key=(source.id, batch),
            requests=tuple([r.id for r in requests]),
            own=own,
            lane=lane,
            priority=choice.priority,
            deadline_ns=inf if deadline_ns is None else deadline_ns,
            launched_ns=now_ns,
            times=choice.times,
            slowdown_function=self.latency.slowdown_function(source.id, own),
            contribution=self.latency.predictor.contribution(own),
            preempts=preempts,
            decision="lease" if leased else choice.decision,
            group=requests[0].group if requests else None,
            gives_way=self.device.lanes <= source.join.preemptible_lanes,
        )
        transfers = source.solo_transfers(own.batch_size) if requests else NO_TRANSFERS
        return [Preempted(*other.key) for other in self.device.start(running, transfers)]

    def _offer_lease(self, ended: RunningBatch | None) -> list[Command]:
        """Offer a lease to a model that has the device to itself, or recall it from one that has not any more."""
        lease = self.leases.current
        if lease is not None and (self._backlog or any(key[0] != lease.source for key in self.device.running)):
            return self.leases.recall()
        if ended is None or self.device.running or len(ended.requests) != 1:
            return []
        assert ended.group is not None
        return self.leases.offer(self.sources[ended.key[0]], ended.rows, ended.group, self.latency)

    def check_invariants(self) -> None:
        """Assert what holds between any two events; called by every test's teardown."""
        self.device.check()
        for batch in self.device.batches:
            queue = self.sources[batch.key[0]].queue
            assert not any(request in queue for request in batch.requests), batch
        self.leases.check()
        self._backlog.check(self.sources)
        held = self.policy.idle_until_ns < inf
        assert self.device.running or not self._backlog or held, "an idle device holds for ever"
