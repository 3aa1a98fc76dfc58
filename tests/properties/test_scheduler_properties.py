"""The scheduler core over random event streams, beside an independent account of where every request is.

A stream is a string of random bytes, out of which `_Stream` reads events; to draw each event by itself would take
minutes. Some of the events cannot be; those must be refused and change nothing.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from backend.scheduler.core import ProtocolError, Scheduler
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
    Lease,
    Ping,
    Recall,
    Reject,
    Request,
    Return,
    RunningBatch,
    Take,
)
from predictor.colocation import SCALE, Parts, quantize
from predictor.features import Exposure, Own, Sums
from predictor.learners.isochrone import Isochrone
from predictor.workload import Load, ModelProfile
from tests.unit.builders import MS, START_NS, join, profile

EVENTS = 100
_BYTES_PER_EVENT = 7
_SOURCES = 5

_TICKS_NS = (0, 0, 0, 1, 1_000, 100_000, MS, 2 * MS, 5 * MS, 20 * MS, 100 * MS, 2_000 * MS)
_SLACKS_NS = (None, None, -5 * MS, 0, 1, MS, 5 * MS, 12 * MS, 20 * MS, 30 * MS, 100 * MS, 10_000 * MS)
_MAX_BATCH_SIZES = (0, 1, 2, 4, 8, 13)
_PROFILES = (
    profile(10.0, 0.5, 0.3, 0.2),
    profile(2.0, 0.9, 1.0, 0.7),
    profile(30.0, 0.123456789, 0.0, 1.0),
    ModelProfile((1,), (Load(1, 1.0, 1.0, 1.0),)),
    ModelProfile((2, 5), (Load(3 * MS, 0.0, 0.0, 0.0), Load(4 * MS, 0.3333333, 0.1, 0.0000004))),
)
_JOINS = tuple(
    join(p, max_batch_size=_MAX_BATCH_SIZES[i % 6], aware=i % 4 != 3, rejects=i % 3 == 2, model=f"m{i}")
    for i, p in enumerate(_PROFILES * 6)
)


@dataclass
class _Interval:
    """A batch's time on the device; `end_ns` None: it runs."""

    own: Parts
    start_ns: int
    end_ns: int | None = None

    def overlap_ns(self, start_ns: int, end_ns: int) -> int:
        own_end_ns = end_ns if self.end_ns is None else self.end_ns
        return max(0, min(own_end_ns, end_ns) - max(self.start_ns, start_ns))


@dataclass
class _Batch:
    requests: tuple[int, ...]
    lane: int
    interval: _Interval
    load: Load


@dataclass
class _Model:
    """What a source's process would know: it joined, these wait, these run."""

    join: Join
    waiting: dict[int, Request] = field(default_factory=dict)
    running: dict[int, _Batch] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    """Requests that were launched, rejected or cancelled."""
    arrivals: int = 0
    lease: Lease | None = None
    recalled: bool = False

    def may_take(self) -> bool:
        return self.lease is not None and not self.waiting and not self.running


class _Listener(Isochrone):
    """Remembers what it was taught about neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.taught: list[Sums] = []

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        self.taught.append(seen.sums)
        super().learn_one(own, seen, slowdown)


class _World:
    """The account: takes the same events as the scheduler, and its commands, and knows what must hold."""

    def __init__(self, lanes: int) -> None:
        self.listener = _Listener()
        self.core = Scheduler(lanes, predictor=self.listener)
        self.core.leases.streak = 1
        self.lanes = lanes
        self.now_ns = self.seen_ns = START_NS
        self.models: dict[int, _Model] = {}
        self.log: list[_Interval] = []
        self.taught: list[_Interval] = []
        self.batches = 0
        self.taken = 0
        self.commands: list[Command] = []
        self.events: list[tuple[int, int, Event | None]] = []
        """(time, source, event); None: the source left."""

    def take(self, source: int, event: Event) -> None:
        commands = self.core.handle(source, event, self.now_ns)
        self.core.learn()
        self.events.append((self.now_ns, source, event))
        if not isinstance(event, Ping):  # which changes nothing, not even what time it is
            self.seen_ns = self.now_ns
        match event:
            case Join():
                self.models[source] = _Model(event)
            case Arrive():
                self.models[source].waiting.update((r.id, r) for r in event.requests)
                self.models[source].arrivals += 1
                self.models[source].lease = None
            case Cancel():
                for request in event.requests:
                    if self.models[source].waiting.pop(request, None) is not None:
                        self.models[source].gone.append(request)
            case Finish():
                batch = self._end(source, event.batch)
                if event.exec_ns is not None and batch.requests:
                    self.taught.append(batch.interval)
            case Adopt():
                for b in event.batches:
                    self._start(source, b.batch, (), b.rows, b.lane)
            case Take():
                lease = self.models[source].lease
                assert lease is not None
                self.taken += 1
                self.models[source].gone.append(event.request.id)
                self._start(source, event.batch, (event.request.id,), event.request.rows, lease.lane)
            case Return():
                self.models[source].lease = None
        self._obey(commands)

    def leave(self, source: int) -> None:
        commands = self.core.leave(source, self.now_ns)
        self.events.append((self.now_ns, source, None))
        self.seen_ns = self.now_ns
        if source in self.models:
            for batch in list(self.models[source].running):
                self._end(source, batch)
            del self.models[source]
        self._obey(commands)

    def refuse(self, source: int, event: Event, now_ns: int) -> None:
        """An event that cannot be: it is refused, and every byte of the state is as before."""
        before = pickle.dumps(self.core)
        with pytest.raises(ProtocolError):
            self.core.handle(source, event, now_ns)
        assert pickle.dumps(self.core) == before

    def _start(self, source: int, batch: int, requests: tuple[int, ...], rows: int, lane: int) -> None:
        join = self.models[source].join
        load = join.profile.at(rows)
        interval = _Interval(quantize(Own(join.model, rows, load)), self.now_ns)
        self.log.append(interval)
        self.models[source].running[batch] = _Batch(requests, min(lane, self.lanes - 1), interval, load)

    def _end(self, source: int, batch: int) -> _Batch:
        ended = self.models[source].running.pop(batch)
        self.models[source].ended.append(batch)
        ended.interval.end_ns = self.now_ns
        return ended

    def _obey(self, commands: list[Command]) -> None:
        self.commands += commands
        for command in commands:
            match command:
                case Launch():
                    self._launch(command)
                case Reject():
                    self._reject(command)
                case Lease():
                    self._leased(command)
                case Recall():
                    model = self.models[command.source]
                    assert model.lease is not None and model.lease.lease == command.lease and not model.recalled
                    model.recalled = True
        self._check()

    def _leased(self, lease: Lease) -> None:
        assert not self.core.running, "a lease is for an idle device"
        assert self.lanes > 1 and 0 <= lease.lane < self.lanes
        model = self.models[lease.source]
        assert lease.arrivals == model.arrivals
        assert lease.solo_ns == model.join.profile.at(lease.rows).solo_ns
        model.lease, model.recalled = lease, False

    def _launch(self, launch: Launch) -> None:
        model = self.models[launch.source]
        assert 0 <= launch.lane < self.lanes
        assert launch.lane not in self.occupied(), "two batches on a lane"
        assert launch.lane not in self.leased(), "another one may launch there by itself"
        assert launch.batch > self.batches, "a batch number was used twice"
        self.batches = launch.batch
        assert launch.requests and len(set(launch.requests)) == len(launch.requests)
        # Waiting here means: of this source, neither launched nor rejected nor cancelled before.
        batch = [model.waiting[request] for request in launch.requests]
        rows = sum(r.rows for r in batch)
        assert len({r.group for r in batch}) == 1
        assert rows <= model.join.max_batch_size or (model.join.max_batch_size == 0 and len(batch) == 1 == rows)
        if not model.join.interference_aware:
            self._launched_in_order(model, batch, rows)
        assert launch.solo_ns == model.join.profile.at(rows).solo_ns
        assert launch.predicted_ns > 0 and launch.bound_ns >= 0 and launch.holds >= 0
        for request in launch.requests:
            del model.waiting[request]
        model.gone += launch.requests
        self._start(launch.source, launch.batch, launch.requests, rows, launch.lane)

    @staticmethod
    def _launched_in_order(model: _Model, batch: list[Request], rows: int) -> None:
        """The oldest, without a gap, and no fewer than a stock dynamic batcher would take."""
        oldest = sorted(model.waiting.values(), key=lambda r: (r.arrival_ns, r.id))
        assert batch == oldest[: len(batch)]
        if len(oldest) > len(batch):
            following = oldest[len(batch)]
            assert following.group != batch[0].group or rows + following.rows > model.join.max_batch_size

    def _reject(self, reject: Reject) -> None:
        model = self.models[reject.source]
        request = model.waiting.pop(reject.request)
        model.gone.append(reject.request)
        assert model.join.rejects and model.join.interference_aware
        assert request.deadline_ns is not None
        assert self.now_ns + model.join.profile.at(request.rows).solo_ns > request.deadline_ns
        assert reject.allowed_ns == request.deadline_ns - request.arrival_ns < reject.predicted_ns

    def occupied(self) -> set[int]:
        return {b.lane for model in self.models.values() for b in model.running.values()}

    def leased(self) -> set[int]:
        return {m.lease.lane for m in self.models.values() if m.lease is not None}

    def waiting(self) -> int:
        return sum(len(model.waiting) for model in self.models.values())

    def _check(self) -> None:
        core = self.core
        core.check_invariants()
        assert core.sources.keys() == self.models.keys()
        for i, model in self.models.items():
            assert core.sources[i].queue.ids() == model.waiting.keys(), "a request was lost, or came from nowhere"
        assert core.running.keys() == {(i, b) for i, model in self.models.items() for b in model.running}
        assert core.running or not self.waiting(), "an idle device holds"
        assert len(self.leased()) == sum(m.lease is not None for m in self.models.values()) <= 1
        assert core.lanes.reserved == next(iter(self.leased()), None)
        if len(self.occupied() | self.leased()) < self.lanes:
            assert all(m.join.interference_aware or not m.waiting for m in self.models.values()), "stock would launch"

    def check_integral(self) -> None:
        """The running integral and what each batch suffered, recomputed from the log of all intervals."""
        colocation = self.core.colocation
        assert list(colocation._integral) == self._integrated(self.log, START_NS, self.seen_ns)
        for source, model in self.models.items():
            for number, batch in model.running.items():
                assert colocation.suffered((source, number)) == self._suffered(batch.interval)

    def check_teaching(self) -> None:
        """Each batch that ended well taught once, with its own neighbours."""
        assert len(self.listener.taught) == len(self.taught)
        for neighbours, interval in list(zip(self.listener.taught, self.taught, strict=True))[-4:]:
            if interval.end_ns != interval.start_ns:  # else the order of events in that nanosecond decides
                assert neighbours == pytest.approx(self._suffered(interval), rel=1e-5, abs=2e-6)  # they are not rounded

    def _suffered(self, interval: _Interval) -> Sums:
        start_ns, end_ns = interval.start_ns, self.seen_ns if interval.end_ns is None else interval.end_ns
        others = [i for i in self.log if i is not interval]
        if start_ns == end_ns:
            now = [sum(i.own[f] for i in others if i.end_ns is None) / SCALE for f in range(6)]
        else:
            now = [whole / ((end_ns - start_ns) * SCALE) for whole in self._integrated(others, start_ns, end_ns)]
        return now[0], now[1], now[2], now[3], now[4], now[5]

    @staticmethod
    def _integrated(intervals: list[_Interval], start_ns: int, end_ns: int) -> list[int]:
        overlaps = [(ns, i.own) for i in intervals if (ns := i.overlap_ns(start_ns, end_ns))]
        return [sum(ns * own[f] for ns, own in overlaps) for f in range(6)]

    def drain(self) -> None:
        """Every batch ends, nothing arrives: whatever waits must be served."""
        while running := [(i, b) for i, model in self.models.items() for b in model.running]:
            self.now_ns += MS
            self.take(running[0][0], Finish(running[0][1], MS))
        assert self.waiting() == 0


class _Stream:
    """Reads events out of bytes, a few for each, and gives them to a world."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._bytes = iter(b"")
        self.world = _World(self._random.randint(1, 4))
        self._next_request = 1

    def __str__(self) -> str:
        """What happened so far, for a failing example."""
        return f"{self.world.lanes} lanes" + "".join(f"\n  {at} {who} {what}" for at, who, what in self.world.events)

    def run(self) -> _World:
        try:
            for i in range(EVENTS):
                self._bytes = iter(self._random.randbytes(_BYTES_PER_EVENT))
                self._step()
                if i == EVENTS // 2:
                    self.world.check_integral()
        except BaseException:
            note(str(self))
            raise
        return self.world

    def _byte(self) -> int:
        """The next of this event's bytes; zeros follow its last one."""
        return next(self._bytes, 0)

    def _step(self) -> None:
        """One event: most are arrivals and finishes, so that the lanes fill and empty."""
        kind = self._byte()
        self.world.now_ns += _TICKS_NS[self._byte() % len(_TICKS_NS)]
        sources = list(self.world.models)
        if len(sources) < 2 or (kind < 8 and len(sources) < _SOURCES):
            self._join()
            return
        source = sources[self._byte() % len(sources)]
        if kind < 60:  # whoever may launch by itself does so more often than chance would have it
            source = next((i for i in sources if self.world.models[i].lease is not None), source)
        if (lease := self.world.models[source].lease) is not None and self.world.models[source].recalled:
            self.world.take(source, Return(lease.lease))
        elif kind < 110:
            self._arrive(source)
        elif kind < 215:
            self._finish()
        elif kind < 225:
            self._cancel(source)
        elif kind < 229:
            self._adopt(source)
        elif kind < 234:
            self.world.leave(source)
        elif kind < 240:
            self.world.take(source, Ping())
        elif kind < 246:  # rare, for the snapshots that it takes
            self._impossible(source, self._byte())

    def _join(self) -> None:
        free = [i for i in range(1, _SOURCES + 2) if i not in self.world.models]
        self.world.take(free[self._byte() % len(free)], _JOINS[self._byte() % len(_JOINS)])

    def _requests(self, source: int) -> tuple[Request, ...]:
        max_rows = max(1, self.world.models[source].join.max_batch_size)
        count = 1 + self._byte() % 4
        what, rows, slack = self._byte(), self._byte(), self._byte()
        return tuple(self._request(what + i * 5, rows + i * 3, slack + i, max_rows) for i in range(count))

    def _request(self, what: int, rows: int, slack: int, max_rows: int) -> Request:
        id_, now_ns = self._next_request, self.world.now_ns
        self._next_request += 1
        slack_ns = _SLACKS_NS[slack % len(_SLACKS_NS)]
        deadline_ns = None if slack_ns is None else now_ns + slack_ns
        arrival_ns = now_ns - (what // 16) % 3  # not quite in the order of the numbers
        return Request(id_, 1 + rows % max_rows, arrival_ns, deadline_ns, 1 + what % 3, int(what % 7 == 0))

    def _arrive(self, source: int) -> None:
        model = self.world.models[source]
        requests = self._requests(source)
        if (lease := model.lease) is not None and model.may_take() and len(requests) < 4:
            r = requests[0]
            request = Request(r.id, lease.rows, r.arrival_ns, r.deadline_ns, r.priority, r.group)
            self.world.take(source, Take(min([0, *model.running, *model.ended]) - 1, request))
        else:
            self.world.take(source, Arrive(requests))

    def _finish(self) -> None:
        running = [(i, b) for i, model in self.world.models.items() for b in model.running]
        if not running:
            return
        source, batch = running[self._byte() % len(running)]
        how = self._byte()
        solo_ns = self.world.models[source].running[batch].load.solo_ns
        self.world.take(source, Finish(batch, None if how < 30 else 1 + solo_ns * how // 100))

    def _cancel(self, source: int) -> None:
        model = self.world.models[source]
        known = [*model.waiting, *model.gone[-3:], 0]
        first = self._byte() % len(known)
        self.world.take(source, Cancel(tuple(known[first : first + 1 + self._byte() % 3])))

    def _adopt(self, source: int) -> None:
        model = self.world.models[source]
        used = min([0, *model.running, *model.ended])
        count, what = 1 + self._byte() % 2, self._byte()
        batches = tuple(RunningBatch(used - 1 - i, 1 + what % 9, (what >> 3) % 6) for i in range(count))
        self.world.take(source, Adopt(batches))

    def _impossible(self, source: int, kind: int) -> None:
        """The first part of most of these is fine: it must not be taken alone."""
        world, model = self.world, self.world.models[source]
        max_rows = max(1, model.join.max_batch_size)
        stranger = _SOURCES + 9
        good = self._requests(source)
        now_ns, old = world.now_ns, good[0]
        batches = {b for m in world.models.values() for b in m.running}
        running = min(model.running, default=None)
        launched = [r for batch in model.running.values() for r in batch.requests]
        waiting_again, running_again = (
            Request(ids[0], 1, now_ns, None, 1) if ids else old for ids in ([*model.waiting], launched)
        )
        free = RunningBatch(min([0, *model.running]) - 1, 1, 0)
        events: tuple[tuple[int, Event], ...] = (
            (stranger, Arrive(good)),
            (stranger, Cancel((1,))),
            (stranger, Finish(1, 1)),
            (stranger, Adopt((free,))),
            (source, model.join),
            (stranger, join(_PROFILES[0], protocol=PROTOCOL + 1)),
            (stranger, join(_PROFILES[0], lanes=world.lanes + 1)),
            (source, Arrive((*good, old))),
            (source, Arrive((*good, waiting_again))),
            (source, Arrive((*good, running_again))),
            (source, Arrive((*good, Request(0, 0, now_ns, None, 1)))),
            (source, Arrive((*good, Request(0, max_rows + 1, now_ns, None, 1)))),
            (source, Arrive((*good, Request(0, 1, now_ns, None, 0)))),
            (stranger, Take(-1, old)),
            (stranger, Return(1)),
            (source, Take(1, old)),
            (source, Take(-1, Request(old.id, 99, now_ns, None, 1))),
            (source, Return(0)),
            (source, Finish(max(batches, default=0) + 1, 1)),
            (source, Finish(model.ended[-1] if model.ended else 0, None)),
            (source, Finish(1 if running is None else running, 0)),
            (source, Finish(1 if running is None else running, -7)),
            (source, Adopt((free, RunningBatch(1, 1, 0)))),
            (source, Adopt((free, RunningBatch(free.batch - 1, 0, 0)))),
            (source, Adopt((free, RunningBatch(free.batch - 1, 1, -1)))),
            (source, Adopt((free, free))),
        )
        if kind % 20 == 0:
            now_ns = world.seen_ns - 1
        world.refuse(*events[kind % len(events)], now_ns)


seeds = st.integers(0, 2**64 - 1)
by_seeds = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a seed does not shrink
)


@settings(by_seeds, max_examples=1_000)
@given(seeds)
def test_nothing_is_lost_nor_launched_twice_nor_beyond_the_lanes(seed: int) -> None:
    world = _Stream(seed).run()
    world.check_integral()
    world.check_teaching()


@settings(by_seeds, max_examples=50)
@given(seeds)
def test_what_waits_is_served_once_arrivals_cease(seed: int) -> None:
    world = _Stream(seed).run()
    world.drain()
    world.check_integral()
    world.check_teaching()


@settings(by_seeds, max_examples=50)
@given(seeds)
def test_the_same_events_give_the_same_commands(seed: int) -> None:
    first = _Stream(seed).run()
    again = Scheduler(first.lanes)
    again.leases.streak = 1
    commands: list[Command] = []
    for at_ns, source, event in first.events:
        if event is None:
            commands += again.leave(source, at_ns)
        else:
            commands += again.handle(source, event, at_ns)
            again.learn()
    assert commands == first.commands
    assert again.policy.predictor.state() == first.core.policy.predictor.state()


def test_the_streams_use_leases_and_take_them_back() -> None:
    worlds = [_Stream(seed).run() for seed in range(60)]
    assert sum(world.taken for world in worlds) >= 10
    assert sum(isinstance(command, Recall) for world in worlds for command in world.commands) >= 5
