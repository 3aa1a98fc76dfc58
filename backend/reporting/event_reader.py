"""Reads an event log (`ISOCHRONE_EVENTS`) for a report, from its lines alone: nothing is replayed, so that a log of
another version, whose decisions would come out otherwise today, is read as well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from backend.errors import ConfigError
from backend.reporting.recording import Answer, ExecutedBatch, LaneSpan, Recording, Suspended
from backend.reporting.words import clock
from backend.scheduler.messages import (
    Adopt,
    BatchTimes,
    Command,
    Finish,
    Join,
    Launch,
    Lease,
    Preempted,
    Request,
    Take,
)
from backend.scheduler_process.event_file import Checkpoint, Handled, Left, Stretch, Woken, read_stretches
from backend.scheduler_process.replay import restored
from backend.scheduler_process.request_index import Record, RequestIndex, packages_of
from predictor.co_runners import CoRunners, Execution
from predictor.features import CoRunner, Own
from predictor.workload import Load, ModelProfile

BatchKey = tuple[int, int]


def read_event_recording(path: Path) -> Recording:
    """Raises ConfigError, a sentence, where the file cannot be read or is no event log."""
    index = RequestIndex(path)
    reader = _Reader(index)
    for known, stretch in zip(index.checkpoints, read_stretches(path), strict=False):
        if stretch.checkpoint.unix_ns != known.unix_ns:
            raise ConfigError(f"'{path}' was full and set aside while it was read: read it again")
        reader.read(stretch)
    found = reader.found
    for record in index.requests:
        counts = found.outcomes.setdefault((record.model, record.request.priority), Counter())
        counts[_outcome(record)] += 1
    return found


def _outcome(record: Record) -> str:
    if record.outcome != "finished":
        return record.outcome if record.outcome in ("rejected", "failed", "cancelled") else "unknown"
    return "no deadline" if record.late_ns is None else "missed" if record.late_ns > 0 else "met"


@dataclass(slots=True)
class _Running:
    """A batch on the device. began_ns: of its present time on its lane; None while it is suspended. times, records:
    none of one that was adopted, or launched before the log began.
    """

    own: Own
    lane: int
    preempts: bool
    launched_ns: int
    times: BatchTimes | None
    records: tuple[Record, ...] = ()
    began_ns: int | None = None
    suspended_ns: int = 0
    """Instant at which it was suspended, while it is."""
    parts: list[Execution] = field(default_factory=list)
    suspended: list[Suspended] = field(default_factory=list)


class _Member(NamedTuple):
    model: str
    profile: ModelProfile

    def own(self, rows: int, solo_ns: int | None) -> Own:
        load = self.profile.at(rows)
        return Own(self.model, rows, load if solo_ns is None else Load(solo_ns, *load.features))


class _Reader:
    """Follows a log's lines. What runs is forgotten at a gap; times are shifted to Unix time there, and only there, so
    that spans between them are exact.
    """

    def __init__(self, index: RequestIndex) -> None:
        origin = index.checkpoints[-1].origin
        self.found = Recording("events", (origin.device,), origin.lanes, index.begins_ns, index.ends_ns)
        self.found.notes += [f"Something is missing before {clock(at_ns)}: {why}." for at_ns, why in index.gaps]
        self._records: defaultdict[tuple[int, int], list[Record]] = defaultdict(list)
        for record in (*index.requests, *index.profile_runs):
            self._records[record.source, record.request.id].append(record)
        self._device, self._lanes, self._cores = origin.device, origin.lanes, origin.cores
        self._number = self._shift_ns = self._at_ns = 0
        self._forget()

    def _forget(self) -> None:
        self._members: dict[int, _Member] = {}
        self._leases: dict[int, Lease] = {}
        self._running: dict[BatchKey, _Running] = {}
        self._co_runners = CoRunners()

    def read(self, stretch: Stretch) -> None:
        """Raises ConfigError where time goes back."""
        if stretch.gap is not None:
            for key in [*self._running]:
                self._end(key, self._at_ns, None)
            self._forget()
            self._begin(stretch.checkpoint)
        for entry in stretch.entries:
            if isinstance(entry, Handled | Left | Woken):
                if entry.at_ns < self._at_ns:
                    raise ConfigError(
                        f"the event log holds what cannot be: time goes back from {self._at_ns} to {entry.at_ns} ns"
                    )
                self._at_ns = entry.at_ns
                if isinstance(entry, Left):
                    self._leave(entry.source, entry.at_ns)
                elif isinstance(entry, Handled) and entry.refused is None:
                    self._handle(entry)
                self._obey(entry.commands, entry.at_ns)
        self._number += 1

    def _begin(self, checkpoint: Checkpoint) -> None:
        self._at_ns, self._shift_ns = checkpoint.at_ns, checkpoint.unix_ns - checkpoint.at_ns
        origin = checkpoint.origin
        self._device, self._lanes, self._cores = origin.device, origin.lanes, origin.cores
        scheduler = restored(checkpoint, packages_of(checkpoint))
        for source in scheduler.sources.values():
            self._members[source.id] = _Member(source.join.model, source.join.profile)
        if (lease := scheduler.leases.current) is not None:
            self._leases[lease.source] = lease
        for batch in scheduler.device.batches:
            ran = _Running(batch.own, batch.lane, batch.preempts, batch.launched_ns, None)
            self._running[batch.key] = ran
            if batch.suspended_for is None:
                self._resume(batch.key, ran, checkpoint.at_ns)
            else:
                ran.suspended_ns = checkpoint.at_ns

    def _handle(self, entry: Handled) -> None:
        source, at_ns = entry.source, entry.at_ns
        match entry.event:
            case Join(model=model, profile=profile):
                self._members[source] = _Member(model, profile)
            case Adopt(batches=batches) if source in self._members:
                for b in batches:
                    own = self._members[source].own(b.rows, None)
                    lane = min(b.lane, self._lanes - 1)
                    preempts = b.preempts and lane == b.lane
                    self._start((source, b.batch), _Running(own, lane, preempts, at_ns, None), at_ns)
            case Take(batch=batch, request=request):
                lease = self._leases.get(source)
                if lease is not None:
                    self._launch((source, batch), lease.lane, False, (request.id,), lease.times, at_ns)
            case Finish():
                self._end((source, entry.event.batch), at_ns, entry.event)

    def _obey(self, commands: Iterable[Command], at_ns: int) -> None:
        for command in commands:
            match command:
                case Launch(source=source, batch=batch, lane=lane, preempts=preempts, requests=ids, times=times):
                    self._launch((source, batch), lane, preempts, ids, times, at_ns)
                case Preempted(source=source, batch=batch):
                    self._suspend((source, batch), at_ns)
                case Lease(source=source):
                    self._leases[source] = command

    def _leave(self, source: int, at_ns: int) -> None:
        for key in [key for key in self._running if key[0] == source]:
            self._end(key, at_ns, None)
        self._members.pop(source, None)

    # Batches

    def _launch(
        self, key: BatchKey, lane: int, preempts: bool, ids: tuple[int, ...], times: BatchTimes, at_ns: int
    ) -> None:
        source = key[0]
        records = tuple(record for i in ids if (record := self._record(source, i)) is not None)
        rows = sum(record.request.rows for record in records)
        if source not in self._members or not rows:
            return
        own = self._members[source].own(rows, times.solo_ns)
        self._start(key, _Running(own, lane, preempts, at_ns, times, records), at_ns)

    def _record(self, source: int, number: int) -> Record | None:
        """The request of that number; numbers begin anew with each scheduler."""
        records = self._records.get((source, number), ())
        return next((record for record in records if record.first <= self._number <= record.last), None)

    def _start(self, key: BatchKey, batch: _Running, at_ns: int) -> None:
        self._running[key] = batch
        self._resume(key, batch, at_ns)

    def _resume(self, key: BatchKey, batch: _Running, at_ns: int) -> None:
        batch.began_ns = at_ns
        shared = self._cores is not None and self._cores < self._lanes
        core = batch.lane % self._cores if shared and self._cores else None
        self._co_runners.launch(key, batch.own, at_ns, core)

    def _suspend(self, key: BatchKey, at_ns: int) -> None:
        batch = self._running.get(key)
        if batch is not None and batch.began_ns is not None:
            self._leave_lane(key, batch, at_ns)
            batch.suspended_ns = at_ns

    def _leave_lane(self, key: BatchKey, batch: _Running, at_ns: int) -> None:
        if batch.began_ns is not None:
            self.found.spans.append(LaneSpan(batch.began_ns + self._shift_ns, at_ns + self._shift_ns, batch.own.model))
            batch.parts.append(self._co_runners.finish(key, at_ns))
            batch.began_ns = None

    def _end(self, key: BatchKey, at_ns: int, finish: Finish | None) -> None:
        """finish: None where it did not end, but its process, or the log, did."""
        batch = self._running.pop(key, None)
        if batch is None:
            return
        if batch.began_ns is None:  # it was done, or nearly, as it was suspended
            there = (other for other in self._running.values() if other.lane == batch.lane and other.preempts)
            batch.suspended += [Suspended(other.own.model, at_ns - batch.suspended_ns) for other in islice(there, 1)]
        self._leave_lane(key, batch, at_ns)
        if batch.preempts:
            self._resume_others(batch, at_ns)
        measured = any(record.loading for record in batch.records)  # its profile is a guess, and nobody waits for it
        if finish is not None and finish.exec_ns is not None and batch.records and not measured:
            self.found.batches.append(self._executed(batch, at_ns, finish, finish.exec_ns))

    def _resume_others(self, ended: _Running, at_ns: int) -> None:
        """Those that the batch on their lane had suspended, unless another one has."""
        there = [(key, other) for key, other in self._running.items() if other.lane == ended.lane]
        still = any(other.preempts for _, other in there)
        for key, other in there:
            if not other.preempts and other.began_ns is None:
                other.suspended.append(Suspended(ended.own.model, at_ns - other.suspended_ns))
                other.suspended_ns = at_ns
                if not still:
                    self._resume(key, other, at_ns)

    def _executed(self, batch: _Running, at_ns: int, finish: Finish, exec_ns: int) -> ExecutedBatch:
        parts, times = batch.parts, batch.times
        if len(parts) == 1:
            parts = [parts[0].between(parts[0].since_ns + finish.h2d_ns, parts[0].until_ns - finish.d2h_ns)]
        return ExecutedBatch(
            self._device,
            batch.own,
            batch.launched_ns + self._shift_ns,
            at_ns + self._shift_ns,
            exec_ns,
            finish.h2d_ns + finish.d2h_ns,
            _joined(parts),
            None if times is None else times.predicted_ns,
            None if times is None else times.bound_ns,
            tuple(batch.suspended),
            tuple(self._answer(record.request) for record in batch.records),
        )

    def _answer(self, request: Request) -> Answer:
        due_ns = None if request.deadline_ns is None else request.deadline_ns + self._shift_ns
        return Answer(request.arrival_ns + self._shift_ns, due_ns, request.priority)


def _joined(parts: list[Execution]) -> tuple[CoRunner, ...]:
    """The co-runners of a batch that was suspended between these parts, as fractions of all of them."""
    if len(parts) == 1:
        return tuple(parts[0].co_runners())
    whole_ns, before_ns = max(1, sum(part.until_ns - part.since_ns for part in parts)), 0
    found = []
    for part in parts:
        span_ns = part.until_ns - part.since_ns
        for c in part.co_runners():
            begin, end = ((before_ns + at * span_ns) / whole_ns for at in (c.begin, c.end))
            found.append(c._replace(begin=begin, end=end))
        before_ns += span_ns
    return tuple(found)
