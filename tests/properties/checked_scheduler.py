"""A scheduler and an account of it: each event goes to both, and whatever comes of it is held against the account."""

from __future__ import annotations

import pickle

import pytest

from backend.scheduler.core import ProtocolError, Scheduler
from backend.scheduler.messages import (
    Adopt,
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
from predictor.colocation import quantize
from predictor.features import Own, feature_parts
from predictor.slowdown_function import SlowdownFunction
from tests.fakes.builders import MS
from tests.properties.account import Account, Execution
from tests.properties.invariants import check_state
from tests.properties.processes import Batch
from tests.properties.recorders import RecordedPredictor, RecordedSolo
from tests.properties.rules import (
    check_doubt,
    check_launch,
    check_lease,
    check_load,
    check_preempted,
    check_recall,
    check_rejection,
    check_take,
    nearly,
)


class CheckedScheduler:
    """Takes events at `account.now_ns`, and raises AssertionError where the scheduler breaks a rule."""

    def __init__(self, lanes: int) -> None:
        self.account = Account(lanes)
        self.predictor = RecordedPredictor()
        self.core = Scheduler(lanes, predictor=self.predictor)
        self.core.leases.streak = 1
        self.commands: list[Command] = []
        self.events: list[tuple[int, int, Event | None]] = []
        """(time, source, event); None: the source left."""

    def take(self, source: int, event: Event) -> None:
        """Hand over an event, and check what comes of it."""
        self._note_late()
        function = self._slowdown_function(source, event) if isinstance(event, Finish) else None
        commands = self.core.handle(source, event, self.account.now_ns)
        self._note_executions()
        self.core.learn()
        self.events.append((self.account.now_ns, source, event))
        if not isinstance(event, Ping):  # which changes nothing, not even what time it is
            self.account.seen_ns = self.account.now_ns
        match event:
            case Join():
                self._join(source, event)
            case Limit():
                self.account.limit(source, event.max_batch_size)
            case Arrive():
                self.account.arrive(source, event.requests)
            case Cancel():
                self.account.cancel(source, event)
            case Finish():
                assert function is not None
                self._finish(source, event, function)
            case Adopt():
                commands = self._adopt(source, event, commands)
            case Take():
                check_take(self.account, source, event)
                self.account.take(source, event)
            case Return():
                self.account.give_back(source)
        self._obey(commands)

    def leave(self, source: int) -> None:
        """End a source's connection."""
        self._note_late()
        commands = self.core.leave(source, self.account.now_ns)
        self._note_executions()
        self.events.append((self.account.now_ns, source, None))
        self.account.seen_ns = self.account.now_ns
        self.account.leave(source)
        self._obey(commands)

    def refuse(self, source: int, event: Event, now_ns: int) -> None:
        """An event that cannot be: it is refused, and every byte of the state is as before."""
        before = pickle.dumps(self.core)
        with pytest.raises(ProtocolError):
            self.core.handle(source, event, now_ns)
        assert pickle.dumps(self.core) == before

    def drain(self) -> None:
        """Every batch ends, nothing arrives: whatever waits must be served."""
        while True:
            if running := [(i, b) for i, model in self.account.models.items() for b in model.running]:
                self.account.now_ns += MS
                self.take(running[0][0], Finish(running[0][1], MS))
            elif self.account.waiting():  # held for a higher class
                self.account.now_ns += IDLE_NS_MAX
                self.take(next(iter(self.account.models)), Cancel(()))
                assert self.core.device.running, "an idle device holds for longer"
            else:
                break
        assert self.account.waiting() == 0

    # Notes for the account of what no command tells

    def _note_late(self) -> None:
        for i, model in self.account.models.items():
            model.late = frozenset(r.id for r in self.core.sources[i].queue.by_lateness())

    def _note_executions(self) -> None:
        """Of what runs now, by what is learned so far: later the predictor may know better."""
        contribution = self.core.latency.predictor.contribution
        self.account.executions = {
            key: Execution(b.load, quantize((*feature_parts(b.rows, b.load), *contribution(b.own))))
            for key, b in self.core.device.running.items()
        }

    def _note_doubts(self) -> None:
        """Requests let through to measure their like: the belief, not having waited, made them hopeless."""
        for i, model in self.account.models.items():
            solo, late = self.core.sources[i].solo, model.late & model.waiting.keys()
            assert isinstance(solo, RecordedSolo)
            assert not (model.join.rejects and solo.doubted) or len(solo.doubted) + len(late) == 1, "one at a time"
            model.doubted = bool(solo.doubted)
            for rows, group in solo.doubted:
                check_doubt(self.account, model, rows, group)
                self.account.doubt(model, rows, group)
            solo.doubted.clear()

    # Events

    def _join(self, source: int, join: Join) -> None:
        self.account.join(source, join)
        known = (join.profile, join.profiled_group, self.account.now_ns)
        self.core.sources[source].solo = RecordedSolo(join.model, *known)

    def _slowdown_function(self, source: int, finish: Finish) -> SlowdownFunction:
        """Of a batch that ends, before anything is learned from it."""
        model = self.account.models[source]
        batch = model.running[finish.batch]
        return self.core.latency.slowdown_function(source, Own(model.join.model, batch.rows, batch.load))

    def _finish(self, source: int, finish: Finish, function: SlowdownFunction) -> None:
        model = self.account.models[source]
        batch = model.running[finish.batch]
        if self.account.finish(source, finish, function):
            assert self.predictor.solo_ns == nearly(model.solo.solo_ns(batch.rows, batch.group))

    def _adopt(self, source: int, adopt: Adopt, commands: list[Command]) -> list[Command]:
        """Returns the commands after those that tell what the adopted batches suspend."""
        suspended: list[Batch] = []
        for adopted in adopt.batches:
            execution = self.account.executions[source, adopted.batch]
            check_load(self.account.models[source], execution, adopted.rows, None)
            suspended += self.account.adopt(source, adopted)
        preempted, following = commands[: len(suspended)], commands[len(suspended) :]
        self.commands += preempted
        assert {id(self._batch_of(command)) for command in preempted} == set(map(id, suspended))
        return following

    # Commands

    def _obey(self, commands: list[Command]) -> None:
        self.commands += commands
        self._note_doubts()
        preempted: list[Batch] = []
        for command in commands:
            match command:
                case Preempted():
                    batch = self._batch_of(command)
                    check_preempted(self.account, batch)
                    preempted.append(batch)
                case Launch():
                    check_launch(self.account, self.core, command, preempted)
                    self.account.launch(command)
                    preempted = []
                case Reject():
                    check_rejection(self.account, command)
                    self.account.reject(command)
                case Lease():
                    check_lease(self.account, self.core, command)
                    self.account.lease(command)
                case Recall():
                    check_recall(self.account, command)
                    self.account.recall(command.source)
        assert not preempted, "no launch preempts it"
        check_state(self.core, self.account)

    def _batch_of(self, command: Command) -> Batch:
        assert isinstance(command, Preempted)
        return self.account.models[command.source].running[command.batch]
