"""An independent account of where every request and batch is, held against the scheduler after each event."""

from __future__ import annotations

import pickle

import pytest
from msgspec.structs import replace

from backend.scheduler.core import ProtocolError, Scheduler
from backend.scheduler.messages import (
    Adopt,
    AdoptedBatch,
    Arrive,
    Cancel,
    Command,
    Event,
    Finish,
    Join,
    Launch,
    Lease,
    Limit,
    Ping,
    Preempted,
    Recall,
    Reject,
    Return,
    Take,
)
from backend.scheduler.policy import IDLE_NS_MAX
from predictor.colocation import SCALE, quantize
from predictor.features import Exposure, FeatureSums, Own, feature_parts
from predictor.learners.isochrone import Isochrone
from predictor.slowdown_function import SlowdownFunction, Sums
from tests.fakes.builders import MS, START_NS
from tests.properties.intervals import FEATURES, Interval, Intervals
from tests.properties.processes import Batch, Model
from tests.properties.rules import check_in_order, check_rejection, nearly
from tests.properties.solo_history import RecordedSolo, SoloHistory


class Listener(Isochrone):
    """Records the co-runners' features that it was trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[FeatureSums] = []
        self.solo_ns = 0
        """Of the last batch, as in its training sample."""

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        self.trained.append(seen.sums)
        self.solo_ns = own.load.solo_ns
        assert slowdown <= 20.0
        super().learn_one(own, seen, slowdown)


class World:
    """The account: takes the same events as the scheduler, and its commands, and knows what must hold."""

    def __init__(self, lanes: int) -> None:
        self.listener = Listener()
        self.core = Scheduler(lanes, predictor=self.listener)
        self.core.leases.streak = 1
        self.lanes = lanes
        self.now_ns = self.seen_ns = START_NS
        self.models: dict[int, Model] = {}
        self.intervals = Intervals()
        self.contributions: dict[tuple[int, int], Sums] = {}
        self.trained: list[Interval] = []
        self.batches = 0
        self.taken = self.doubts = self.guessed = 0
        self.commands: list[Command] = []
        self.events: list[tuple[int, int, Event | None]] = []
        """(time, source, event); None: the source left."""

    def take(self, source: int, event: Event) -> None:
        self._look()
        response = self._response(source, event)
        commands = self.core.handle(source, event, self.now_ns)
        self._note_contributions()
        self.core.learn()
        self.events.append((self.now_ns, source, event))
        if not isinstance(event, Ping):  # which changes nothing, not even what time it is
            self.seen_ns = self.now_ns
        match event:
            case Join():
                self._joined(source, event)
            case Limit():
                join = replace(self.models[source].join, max_batch_size=event.max_batch_size)
                self.models[source].join = join
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
                if event.exec_ns is not None and batch.requests and not batch.was_suspended:
                    self.models[source].moves |= event.h2d_ns + event.d2h_ns > 0
                    executed = batch.interval.without(event.h2d_ns, event.d2h_ns)
                    self.trained.append(executed)
                    assert response is not None
                    self._measured(self.models[source], batch, executed, event.exec_ns, response)
            case Adopt():
                suspended = [batch for adopted in event.batches for batch in self._adopt(source, adopted)]
                preempted, commands = commands[: len(suspended)], commands[len(suspended) :]
                self.commands += preempted
                assert {id(self._batch_of(command)) for command in preempted} == set(map(id, suspended))
            case Take():
                self._took(source, event)
            case Return():
                self.models[source].lease = None
        self._obey(commands)

    def _adopt(self, source: int, adopted: AdoptedBatch) -> list[Batch]:
        """On a lane that is not here it takes the last."""
        here = adopted.lane < self.lanes
        lane = (adopted.lane, adopted.preempts) if here else (self.lanes - 1, False)
        return self._start(source, adopted.batch, (), (adopted.rows, None), lane)

    def _took(self, source: int, take: Take) -> None:
        model, r = self.models[source], take.request
        assert model.lease is not None and (r.rows, r.group) == (model.lease.rows, model.lease.group)
        self.taken += 1
        model.gone.append(r.id)
        self._start(source, take.batch, (r.id,), (r.rows, r.group), (model.lease.lane, False), r.deadline_ns)

    def leave(self, source: int) -> None:
        self._look()
        commands = self.core.leave(source, self.now_ns)
        self._note_contributions()
        self.events.append((self.now_ns, source, None))
        self.seen_ns = self.now_ns
        if source in self.models:
            running = self.models[source].running
            for batch in sorted(
                running, key=lambda number: running[number].preempts
            ):  # so that none resumes for no time
                self._end(source, batch)
            del self.models[source]
        self._obey(commands)

    def refuse(self, source: int, event: Event, now_ns: int) -> None:
        """An event that cannot be: it is refused, and every byte of the state is as before."""
        before = pickle.dumps(self.core)
        with pytest.raises(ProtocolError):
            self.core.handle(source, event, now_ns)
        assert pickle.dumps(self.core) == before

    def _start(
        self,
        source: int,
        batch: int,
        requests: tuple[int, ...],
        what: tuple[int, int | None],
        where: tuple[int, bool],
        due_ns: int | None = None,
    ) -> list[Batch]:
        """Batches suspended from now on. what: its rows and group; where: its lane, and whether it preempts there."""
        (rows, group), (lane, preempts), model = what, where, self.models[source]
        join = model.join
        load = self.core.device.running[source, batch].load  # to the nanosecond, which other arithmetic is not
        assert load.solo_ns == nearly(model.solo.solo_ns(rows, group))
        assert load.features == join.profile.at(rows).features
        interval = self._interval((source, batch))
        begun = self.models[source].running[batch] = Batch(
            requests, (source, batch), lane, interval, load, self.now_ns, due_ns, rows, group, preempts
        )
        below, preempting = self._on(lane, preempts=False), self._on(lane, preempts=True)
        return [batch for batch in (below if preempts else [begun] if preempting else []) if self._suspend(batch)]

    def _end(self, source: int, batch: int) -> Batch:
        ended = self.models[source].running.pop(batch)
        self.models[source].ended.append(batch)
        if not ended.suspended:
            ended.interval.end_ns = self.now_ns
        if ended.preempts and not self._on(ended.lane, preempts=True):
            for below in self._on(ended.lane, preempts=False):
                below.suspended = False
                below.interval = self._interval(below.key)
        return ended

    def _note_contributions(self) -> None:
        """Of what runs now, by what is learned so far: later the predictor may know better."""
        running = self.core.device.running
        self.contributions = {key: self.core.latency.predictor.contribution(b.own) for key, b in running.items()}

    def _interval(self, key: tuple[int, int]) -> Interval:
        """Begin a stretch of a batch's time on the device."""
        own = self.core.device.running[key].own
        parts = (*feature_parts(own.batch_size, own.load), *self.contributions[key])
        return self.intervals.begin(quantize(parts), self.now_ns)

    def _on(self, lane: int, *, preempts: bool) -> list[Batch]:
        """Batches launched on this lane, those that preempt or those that do not."""
        batches = (b for model in self.models.values() for b in model.running.values())
        return [b for b in batches if (b.lane, b.preempts) == (lane, preempts)]

    def _suspend(self, batch: Batch) -> bool:
        """False where it was suspended before."""
        if batch.suspended:
            return False
        batch.suspended = batch.was_suspended = True
        batch.interval.end_ns = self.now_ns
        return True

    def _joined(self, source: int, join: Join) -> None:
        known = (join.profile, join.profiled_group, self.now_ns)
        self.models[source] = Model(join, SoloHistory(*known))
        self.core.sources[source].solo = RecordedSolo(join.model, *known)

    def _response(self, source: int, event: Event) -> SlowdownFunction | None:
        """Slowdown function of a batch that ends, before anything is learned from it."""
        if not isinstance(event, Finish):
            return None
        batch, join = self.models[source].running[event.batch], self.models[source].join
        return self.core.latency.slowdown_function(source, Own(join.model, batch.rows, batch.load))

    def _measured(
        self, model: Model, batch: Batch, executed: Interval, exec_ns: int, response: SlowdownFunction
    ) -> None:
        """Record its solo latency: all that it took, where it had no co-runners."""
        rows, group = batch.rows, batch.group
        assert group is not None
        if not self.intervals.had_co_runners(executed):
            model.solo.measured(rows, group, exec_ns, self.now_ns)
        elif model.solo.teaches(rows, group, exec_ns):
            slowdown = response.slowdown(self.intervals.suffered(batch.interval, self.seen_ns)[FEATURES:])
            self.guessed += 1
            model.solo.measured(rows, group, exec_ns / max(1.0, slowdown), self.now_ns)
        assert self.listener.solo_ns == nearly(model.solo.solo_ns(rows, group))

    def _look(self) -> None:
        for i, model in self.models.items():
            model.late = frozenset(r.id for r in self.core.sources[i].queue.by_lateness())

    def _doubt(self) -> None:
        """Note the requests let through to measure their like: the belief, not having waited, made them hopeless."""
        for i, model in self.models.items():
            solo, late = self.core.sources[i].solo, model.late & model.waiting.keys()
            assert isinstance(solo, RecordedSolo)
            assert not (model.join.rejects and solo.doubted) or len(solo.doubted) + len(late) == 1, "one at a time"
            model.doubted = bool(solo.doubted)
            for rows, group in solo.doubted:
                assert model.solo.old(rows, group, self.now_ns), "it was measured, or doubted, a moment ago"
                assert model.join.interference_aware
                model.solo.doubt(rows, group, self.now_ns)
                self.doubts += 1
            solo.doubted.clear()

    def _obey(self, commands: list[Command]) -> None:
        self.commands += commands
        self._doubt()
        preempted: list[Batch] = []
        for command in commands:
            match command:
                case Preempted():
                    preempted.append(self._preempted(command))
                case Launch():
                    self._launch(command, preempted)
                    preempted = []
                case Reject():
                    self._reject(command)
                case Lease():
                    self._leased(command)
                case Recall():
                    model = self.models[command.source]
                    assert model.lease is not None and model.lease.lease == command.lease and not model.recalled
                    model.recalled = True
        assert not preempted, "no launch preempts it"
        self._check()

    def _batch_of(self, command: Command) -> Batch:
        assert isinstance(command, Preempted)
        return self.models[command.source].running[command.batch]

    def _preempted(self, preempted: Preempted) -> Batch:
        model, batch = self.models[preempted.source], self._batch_of(preempted)
        assert model.join.interference_aware and self.lanes <= model.join.preemptible_lanes
        assert batch.requests and not batch.preempts and not batch.suspended
        young = self.now_ns < batch.launched_ns + 1_000 * MS
        assert young or (batch.due_ns is not None and self.now_ns < batch.due_ns), "it would be suspended for ever"
        return batch

    def _leased(self, lease: Lease) -> None:
        assert not self.core.device.running, "a lease is for an idle device"
        assert self.lanes > 1 and 0 <= lease.lane < self.lanes
        model = self.models[lease.source]
        assert lease.arrivals == model.arrivals
        assert lease.times.solo_ns == nearly(model.solo.solo_ns(lease.rows, lease.group))
        model.lease, model.recalled = lease, False

    def _launch(self, launch: Launch, preempted: list[Batch]) -> None:
        model = self.models[launch.source]
        assert 0 <= launch.lane < self.lanes
        if not launch.preempts:
            assert launch.lane not in self.occupied(), "two batches on a lane"
            assert launch.lane not in self.leased(), "another one may launch there by itself"
            assert not preempted
        else:
            assert not self._on(launch.lane, preempts=True), "two preempting batches on a lane"
            assert self._on(launch.lane, preempts=False) == preempted != []
            assert len(self.occupied()) == self.lanes, "a lane was free"
            assert model.join.interference_aware and self.lanes <= model.join.preemptible_lanes
            head = model.waiting[launch.requests[0]]
            below = self.core.device.running[preempted[0].key].priority
            without = preempted[0].due_ns is None and head.priority < below
            assert head.deadline_ns is not None or without, "it could wait, and the other one had a deadline"
        assert launch.batch > self.batches, "a batch number was used twice"
        self.batches = launch.batch
        assert launch.requests and len(set(launch.requests)) == len(launch.requests)
        # Waiting here means: of this source, neither launched nor rejected nor cancelled before.
        batch = [model.waiting[request] for request in launch.requests]
        rows = sum(r.rows for r in batch)
        assert len({r.group for r in batch}) == 1
        assert rows <= model.join.max_batch_size or len(batch) == 1
        if not model.join.interference_aware:
            check_in_order(model, batch, rows)
        assert launch.times.solo_ns == nearly(model.solo.solo_ns(rows, batch[0].group))
        assert launch.times.predicted_ns > 0 and launch.times.bound_ns >= 0 and launch.holds >= 0
        assert min(launch.times.h2d_ns, launch.times.d2h_ns) >= 0
        assert model.moves or launch.times.h2d_ns == launch.times.d2h_ns == 0
        for request in launch.requests:
            del model.waiting[request]
        model.gone += launch.requests
        due_ns = min((r.deadline_ns for r in batch if r.deadline_ns is not None), default=None)
        where = (launch.lane, launch.preempts)
        self._start(launch.source, launch.batch, launch.requests, (rows, batch[0].group), where, due_ns)

    def _reject(self, reject: Reject) -> None:
        model = self.models[reject.source]
        request = model.waiting.pop(reject.request)
        model.gone.append(reject.request)
        check_rejection(model, request, reject, self.now_ns)

    def occupied(self) -> set[int]:
        return {b.lane for model in self.models.values() for b in model.running.values()}

    def leased(self) -> set[int]:
        return {m.lease.lane for m in self.models.values() if m.lease is not None}

    def waiting(self) -> int:
        return sum(len(model.waiting) for model in self.models.values())

    def _check_idle_hold(self) -> None:
        """An idle device holds for a higher class than what waits first, and not for long."""
        assert all(model.join.interference_aware or not model.waiting for model in self.models.values())
        waiting = [request.priority for model in self.models.values() for request in model.waiting.values()]
        assert max(waiting) > min(self.core.policy.arrivals.classes), "nothing higher is expected"
        assert self.core.wake_after_ns() <= self.seen_ns + IDLE_NS_MAX, "an idle device holds for long"

    def _check(self) -> None:
        core = self.core
        core.check_invariants()
        assert core.sources.keys() == self.models.keys()
        for i, model in self.models.items():
            assert core.sources[i].queue.ids() == model.waiting.keys(), "a request was lost, or came from nowhere"
        assert core.device.running.keys() == {(i, b) for i, model in self.models.items() for b in model.running}
        if not core.device.running and self.waiting():
            self._check_idle_hold()
        assert len(self.leased()) == sum(m.lease is not None for m in self.models.values()) <= 1
        assert core.device.reserved_lane == next(iter(self.leased()), None)
        if len(self.occupied() | self.leased()) < self.lanes:
            assert all(m.join.interference_aware or not m.waiting for m in self.models.values()), "stock would launch"

    def check_integral(self) -> None:
        """The running integral and what each batch suffered, recomputed from all intervals."""
        colocation = self.core.device.colocation
        colocation.advance(self.seen_ns)
        assert list(colocation._integral) == self.intervals.integral(START_NS, self.seen_ns)[FEATURES:]
        for source, model in self.models.items():
            for number, batch in model.running.items():
                if batch.suspended:
                    continue
                assert (
                    colocation.suffered((source, number))
                    == self.intervals.suffered(batch.interval, self.seen_ns)[FEATURES:]
                )

    def check_training(self) -> None:
        """Each batch that ended well trained the predictor once, with its own co-runners."""
        assert len(self.listener.trained) == len(self.trained)
        for sums, interval in list(zip(self.listener.trained, self.trained, strict=True))[-4:]:
            if interval.end_ns != interval.start_ns:  # else the order of events in that nanosecond decides
                suffered = self.intervals.suffered(interval, self.seen_ns)[:FEATURES]
                rounded = (0.5 * suffered[0] + 0.1) / SCALE  # here each co-runner's parts are, in the sample not
                assert sums == pytest.approx(suffered, rel=1e-5, abs=rounded)

    def drain(self) -> None:
        """Every batch ends, nothing arrives: whatever waits must be served."""
        while True:
            if running := [(i, b) for i, model in self.models.items() for b in model.running]:
                self.now_ns += MS
                self.take(running[0][0], Finish(running[0][1], MS))
            elif self.waiting():  # held for a higher class
                self.now_ns += IDLE_NS_MAX
                self.take(next(iter(self.models)), Cancel(()))
                assert self.core.device.running, "an idle device holds for longer"
            else:
                break
        assert self.waiting() == 0
