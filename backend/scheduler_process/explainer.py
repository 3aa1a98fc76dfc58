"""Tells why one request was launched, held, preempted or rejected when it was, off a replayed scheduler.

All reasons are answers of the core's own forecasts, noted while it decided; see `backend.scheduler_process.replay`.
"""

from __future__ import annotations

from math import inf
from pathlib import Path

from backend.errors import ConfigError
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Arrive, BatchTimes, Cancel, Command, Finish, Launch, Reject, Take
from backend.scheduler.running_batch import BatchKey, RunningBatch
from backend.scheduler.source import Source
from backend.scheduler_process.event_file import Entry, Handled, Left, Saved, Trained, read_stretches
from backend.scheduler_process.explanation import (
    Batch,
    Cost,
    Explanation,
    Finished,
    Harmed,
    Launched,
    Limit,
    Refused,
    Suspension,
    Wait,
)
from backend.scheduler_process.replay import Harm, Notes, Replay
from backend.scheduler_process.request_index import Record, packages_of

WAITS_MAX = 64
"""Different reasons to wait that are kept, one after the other."""


def explain(path: Path, record: Record) -> Explanation:
    """Replay the part of the log that the request is in. Raises ConfigError."""
    watcher = _Watcher(record)
    found = watcher.found
    if record.before:
        found.incomplete.append("it arrived before what the log holds; how it was held until then is not known")
    for number, stretch in enumerate(read_stretches(path)):
        if record.first <= number <= record.last:
            replay = Replay(watcher, packages_of(stretch.checkpoint))
            try:
                replay.run(stretch)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise ConfigError(f"the event log holds what cannot be: {error!r}") from None
            if replay.departures and not watcher.over:
                found.incomplete.append(
                    "the replay departs from the log while it was there, as where another version wrote it; "
                    "what follows is not explained"
                )
                break
    if record.outcome == "unknown":
        found.incomplete.append("the log has a gap before it ended")
    return found


class _Watcher:
    """Looks at each decision while the request is there."""

    def __init__(self, record: Record) -> None:
        request = record.request
        self.found = Explanation(record.number, record.model, request, record.clock_ns)
        self._source, self._request = record.source, request
        self._arrived = record.before
        self._batch: BatchKey | None = None
        self._queued: dict[str, int] = {}

    @property
    def over(self) -> bool:
        """True where nothing more can become of it."""
        found = self.found
        return (found.finished or found.rejected or found.cancelled_ns or found.gone_ns) is not None

    def wants(self, entry: Entry) -> bool:
        return self._arrived or self._arrives(entry)

    def before(self, scheduler: Scheduler, entry: Entry) -> None:
        if self._arrives(entry):
            self.found.waiting = {
                source.join.model: len(source.queue) for source in scheduler.sources.values() if len(source.queue)
            }

    def after(self, scheduler: Scheduler, entry: Entry, notes: list[Notes]) -> None:
        if isinstance(entry, Trained | Saved):
            return
        now_ns = entry.at_ns
        launches = [command for command in entry.commands if isinstance(command, Launch)]
        if self._arrives(entry):
            self._arrived, self.found.arrived_ns = True, now_ns
            just_now = {(launch.source, launch.batch) for launch in launches}
            self.found.running = _running(scheduler, now_ns, just_now)
            if isinstance(entry, Handled) and isinstance(entry.event, Take):
                self._took(scheduler, entry.event, now_ns)
        self._ends(entry, now_ns)
        if self._batch is None and not self.over:
            self._waits(scheduler, entry.commands, launches, notes, now_ns)
        if self._batch is not None:  # the decision that launched it may have suspended it as well
            self._suspended(scheduler, now_ns)

    def _arrives(self, entry: Entry) -> bool:
        if not isinstance(entry, Handled) or entry.source != self._source or entry.refused is not None:
            return False
        match entry.event:
            case Arrive(requests=requests):
                return self._request.id in {request.id for request in requests}
            case Take(request=request):
                return request.id == self._request.id
        return False

    def _ends(self, entry: Entry, now_ns: int) -> None:
        found = self.found
        if isinstance(entry, Left) and entry.source == self._source:
            found.gone_ns = now_ns
        if not isinstance(entry, Handled) or entry.source != self._source or entry.refused is not None:
            return
        match entry.event:
            case Cancel(requests=ids) if self._batch is None and self._request.id in ids:
                found.cancelled_ns = now_ns
            case Finish() as end if self._batch == (self._source, end.batch):
                due_ns = self._request.deadline_ns
                late_ns = None if due_ns is None else now_ns - due_ns
                found.finished = Finished(now_ns, end.exec_ns, end.h2d_ns, end.d2h_ns, late_ns)

    def _suspended(self, scheduler: Scheduler, now_ns: int) -> None:
        stands = any(batch.suspended_for is not None for batch in scheduler.device.batches if batch.key == self._batch)
        spans = self.found.suspended
        if stands and (not spans or spans[-1].until_ns is not None):
            spans.append(Suspension(now_ns))
        elif not stands and spans and spans[-1].until_ns is None:
            spans[-1].until_ns = now_ns

    def _took(self, scheduler: Scheduler, take: Take, now_ns: int) -> None:
        self._batch = (self._source, take.batch)
        batch = scheduler.device.running[self._batch]
        times = _times(batch.times)
        self.found.launched = Launched(
            now_ns, take.batch, batch.lane, 1, batch.rows, "lease", None, batch.decision, *times, [], []
        )

    def _waits(
        self,
        scheduler: Scheduler,
        commands: tuple[Command, ...],
        launches: list[Launch],
        notes: list[Notes],
        now_ns: int,
    ) -> None:
        for command in commands:
            if isinstance(command, Reject) and (command.source, command.request) == (self._source, self._request.id):
                waited_ns = now_ns - self._request.arrival_ns
                self.found.rejected = Refused(
                    now_ns,
                    command.predicted_ns - waited_ns,
                    command.allowed_ns - waited_ns,
                    command.predicted_ns,
                    command.allowed_ns,
                )
                return
        ran_before = len(scheduler.device.running) - len(launches)
        for i, launch in enumerate(launches):
            if launch.source == self._source and self._request.id in launch.requests:
                asked = [note for note in notes if note.running == ran_before + i]
                later = {(other.source, other.batch) for other in launches[i:]}
                self._launched(scheduler, launch, asked, later, now_ns)
                return
            name = scheduler.sources[launch.source].join.model
            self.found.passed[name] = self.found.passed.get(name, 0) + 1
        self._held(scheduler, [note for note in notes if note.running == len(scheduler.device.running)], now_ns)

    def _launched(
        self,
        scheduler: Scheduler,
        launch: Launch,
        asked: list[Notes],
        later: set[BatchKey],
        now_ns: int,
    ) -> None:
        self._batch = (launch.source, launch.batch)
        batch = scheduler.device.running[self._batch]
        preempted = [b for b in scheduler.device.batches if b.suspended_for is batch]
        source = scheduler.sources[launch.source]
        limit, allowed = _limit(source, launch, asked, preempts=bool(preempted))
        self.found.launched = Launched(
            now_ns,
            launch.batch,
            launch.lane,
            len(launch.requests),
            batch.rows,
            limit,
            allowed,
            launch.decision,
            *_times(launch.times),
            _running(scheduler, now_ns, later.union(b.key for b in preempted)),
            [_description(scheduler, other, now_ns, set()) for other in preempted],
        )

    def _held(self, scheduler: Scheduler, asked: list[Notes], now_ns: int) -> None:
        wait = self._wait(scheduler, asked[-1] if asked else None, now_ns)
        waits = self.found.waits
        key = (wait.reason, [(h.model, h.lane) for h in wait.harmed])
        if waits and key == (waits[-1].reason, [(h.model, h.lane) for h in waits[-1].harmed]):
            waits[-1].times += 1
            waits[-1].until_ns = now_ns
        elif len(waits) < WAITS_MAX:
            waits.append(wait)
        else:
            waits[-1].until_ns = now_ns

    def _wait(self, scheduler: Scheduler, notes: Notes | None, now_ns: int) -> Wait:
        """The reason why it waits after this decision. notes: of the last forecast, which led to no launch."""
        key, source = (self._source, self._request.id), scheduler.sources[self._source]
        ranked = [request.id for request in source.queue.by_rank()]
        wait = Wait(now_ns, now_ns, 1, "lanes", _running(scheduler, now_ns, set()))
        if self._request.id not in ranked:
            wait.reason = "late"
            return wait
        wait.ahead = ranked.index(self._request.id)
        if scheduler.device.free_lane() is None:
            if scheduler.device.reserved_lane is not None and len(wait.running) < scheduler.device.lanes:
                wait.reason = "leased"
            elif notes is not None and notes.can_wait.get(key):
                wait.reason = "can wait"
            return wait
        wait.reason = "not looked at"
        if notes is None:
            return wait
        members, _ = notes.members.get(self._source, ((), 0))
        if key in notes.untimely and self._request not in members:
            wait.reason, wait.late_ns = "too late", round(notes.untimely[key])
        elif self._source in notes.better_later:
            wait.reason = "better later"
        elif notes.harms.get(self._source):
            wait.reason = "harm"
            wait.harmed = [_harmed(scheduler, harm) for harm in notes.harms[self._source]]
        elif weighed := notes.weighed.get(self._source):
            least = weighed[-1]
            wait.reason, wait.keeps = "expected", least.keeps
            wait.costs = [Cost(priority, lost, price) for priority, (lost, price) in least.losses.items()]
        return wait


def _limit(source: Source, launch: Launch, asked: list[Notes], *, preempts: bool) -> tuple[Limit, int | None]:
    """The reason why the batch is no larger, and how much would have been allowed, or waited."""
    if asked and not preempts and source.join.interference_aware and source.id in asked[-1].members:
        return _limit_by_forecast(source, launch, asked[-1])
    if not asked:
        return "only", None
    if preempts:
        return "preempts", None
    return ("late", None) if source.join.interference_aware else ("order", source.join.max_batch_size)


def _limit_by_forecast(source: Source, launch: Launch, notes: Notes) -> tuple[Limit, int | None]:
    (members, fitting), count = notes.members[source.id], len(launch.requests)
    weighed = notes.weighed.get(source.id, [])
    held = notes.running and weighed and not any(each.pays for each in weighed)
    if held or notes.harms.get(source.id) or source.id in notes.better_later:
        return "overdue", None
    if weighed and count < weighed[0].requests:
        return "expected", weighed[0].requests
    if count < fitting:
        return "harm", fitting
    if fitting < len(members):
        return "deadline", len(members)
    most = maximum = source.join.max_batch_size
    if notes.contended and source.knee is not None:
        most = source.knee[1]
    if not len(source.queue) or sum(request.rows for request in members) < most:
        return "all", None
    return ("knee" if most < maximum else "max_batch_size"), most


def _running(scheduler: Scheduler, now_ns: int, but: set[BatchKey]) -> list[Batch]:
    """The batches that run but for these, none of which has suspended another one yet, with the ends that are predicted
    beside all of them.
    """
    scheduler.device.update_slowdowns()
    return [_description(scheduler, batch, now_ns, but) for batch in scheduler.device.batches if batch.key not in but]


def _description(scheduler: Scheduler, batch: RunningBatch, now_ns: int, but: set[BatchKey]) -> Batch:
    ends_ns = now_ns + round(batch.remaining_ns * batch.slowdown)
    model = scheduler.sources[batch.key[0]].join.model
    suspended = batch.suspended_for is not None and batch.suspended_for.key not in but
    due_ns = None if batch.deadline_ns == inf else round(batch.deadline_ns)
    return Batch(model, batch.rows, batch.lane, batch.launched_ns, ends_ns, due_ns, suspended)


def _times(times: BatchTimes) -> tuple[int, int, int, int, int]:
    return times.solo_ns, times.predicted_ns, times.bound_ns, times.h2d_ns, times.d2h_ns


def _harmed(scheduler: Scheduler, harm: Harm) -> Harmed:
    batch = scheduler.device.running[harm.key]
    return Harmed(scheduler.sources[harm.key[0]].join.model, batch.rows, batch.lane, round(harm.late_ns))
