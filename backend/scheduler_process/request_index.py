"""Finds every request of an event log and what became of it, from the lines alone: nothing is replayed for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from backend.errors import ConfigError
from backend.scheduler.messages import Arrive, Cancel, Command, Finish, Join, Launch, Preempted, Reject, Request, Take
from backend.scheduler_process.event_file import Checkpoint, Handled, Left, Stretch, Woken, read_stretches
from backend.scheduler_process.replay import restored
from backend.scheduler_process.scheduler_factory import VARIABLE as SCHEDULER

Outcome = Literal["waits", "runs", "finished", "failed", "rejected", "cancelled", "gone", "unknown"]
"""gone: its model's process ended; unknown: the log has a gap there."""


class Record(msgspec.Struct):
    """One request. first, last: the log's stretches that it was there in. before: it arrived before the first.

    loading: a launch of the model's load, which measured it or tried it.
    """

    model: str
    source: int
    request: Request
    first: int
    last: int
    clock_ns: int
    """Unix time less the monotonic clock's."""
    before: bool = False
    loading: bool = False
    outcome: Outcome = "waits"
    launched_ns: int | None = None
    ended_ns: int | None = None
    """Time at which its batch finished, or it was rejected or given up."""

    @property
    def number(self) -> str:
        """The name of a request to an operator."""
        return f"{self.source}.{self.request.id}"

    @property
    def late_ns(self) -> int | None:
        """Time from its deadline to its end, below 0 where it was kept; None where it did not finish or has none."""
        if self.outcome != "finished" or self.request.deadline_ns is None or self.ended_ns is None:
            return None
        return self.ended_ns - self.request.deadline_ns


class Counts(msgspec.Struct):
    """Numbers of one model. held: batches that had to wait though a lane was free, once each; late: requests."""

    requests: int = 0
    launched: int = 0
    batches: int = 0
    held: int = 0
    split: int = 0
    preempted: int = 0
    rejected: int = 0
    cancelled: int = 0
    late: int = 0


class RequestIndex:
    """Reads a whole log. Raises ConfigError."""

    def __init__(self, path: Path) -> None:
        self.requests: list[Record] = []
        """Those of clients."""
        self.profile_runs: list[Record] = []
        """Those that measured models as they were loaded; nothing counts them."""
        self.models: dict[str, Counts] = {}
        self.checkpoints: list[Checkpoint] = []
        self.gaps: list[tuple[int, str]] = []
        """(Unix time, why) of each moment before which something is missing, the log's beginning excepted."""
        self.begins_ns = self.ends_ns = 0
        self._known: dict[tuple[int, int], Record] = {}
        self._names: dict[int, str] = {}
        self._loading: set[int] = set()
        """Sources that do not serve yet."""
        self._running: dict[tuple[int, int], list[Record]] = {}
        self._stretch = self._clock_ns = 0
        for self._stretch, stretch in enumerate(read_stretches(path)):
            self._read(stretch)

    def _read(self, stretch: Stretch) -> None:
        checkpoint = stretch.checkpoint
        self._clock_ns = checkpoint.unix_ns - checkpoint.at_ns
        if not self.checkpoints:
            self.begins_ns = checkpoint.unix_ns
        elif stretch.gap is not None:
            self.gaps.append((checkpoint.unix_ns, stretch.gap))
        self.checkpoints.append(checkpoint)
        self._begin(checkpoint, continued=stretch.gap is None)
        at_ns = checkpoint.at_ns
        for entry in stretch.entries:
            if isinstance(entry, Handled | Left | Woken):
                at_ns = entry.at_ns
                self._enter(entry)
                for command in entry.commands:
                    self._obey(command, at_ns)
        self.ends_ns = at_ns + self._clock_ns

    def _open(self) -> Iterator[Record]:
        return (record for record in self._known.values() if record.outcome in ("waits", "runs"))

    def _begin(self, checkpoint: Checkpoint, *, continued: bool) -> None:
        """Take over what was there at a checkpoint."""
        if not continued:
            for record in self._open():
                record.outcome = "unknown"
            self._known, self._running = {}, {}
        for record in self._open():
            record.last = self._stretch
        scheduler = restored(checkpoint, packages_of(checkpoint))
        self._names = {source.id: source.join.model for source in scheduler.sources.values()}
        self._loading = {source.id for source in scheduler.sources.values() if source.join.loading}
        for source in scheduler.sources.values():
            for request in [*source.queue.by_rank(), *source.queue.by_lateness()]:
                if (source.id, request.id) not in self._known:
                    self._add(source.id, request).before = True
            self._counts(source.id)

    def _enter(self, entry: Handled | Left | Woken) -> None:
        if isinstance(entry, Left):
            for record in self._open():
                if record.source == entry.source:
                    record.outcome, record.ended_ns = "gone", entry.at_ns
        elif isinstance(entry, Handled) and entry.refused is None:
            self._handle(entry)

    def _handle(self, entry: Handled) -> None:
        match entry.event:
            case Join(model=model, loading=loading):
                self._names[entry.source] = model
                (self._loading.add if loading else self._loading.discard)(entry.source)
                self._counts(entry.source)
            case Arrive(requests=requests):
                for request in requests:
                    self._add(entry.source, request)
            case Cancel(requests=ids):
                for record in (self._known.get((entry.source, i)) for i in ids):
                    if record is not None and record.outcome == "waits":
                        record.outcome, record.ended_ns = "cancelled", entry.at_ns
                        self._counts(entry.source).cancelled += 1
            case Take(batch=batch, request=request):
                self._add(entry.source, request)
                self._launch(entry.source, batch, (request.id,), entry.at_ns)
            case Finish(batch=batch, exec_ns=exec_ns):
                for record in self._running.pop((entry.source, batch), ()):
                    record.outcome = "failed" if exec_ns is None else "finished"
                    record.ended_ns = entry.at_ns
                    self._counts(entry.source).late += (record.late_ns or 0) > 0

    def _obey(self, command: Command, at_ns: int) -> None:
        counts = self._counts(command.source)
        match command:
            case Launch():
                counts.held += command.holds
                counts.split += command.decision == "split"
                self._launch(command.source, command.batch, command.requests, at_ns)
            case Preempted():
                counts.preempted += 1
            case Reject():
                counts.rejected += 1
                if (record := self._known.get((command.source, command.request))) is not None:
                    record.outcome, record.ended_ns = "rejected", at_ns

    def _launch(self, source: int, batch: int, ids: tuple[int, ...], at_ns: int) -> None:
        counts = self._counts(source)
        counts.batches += 1
        counts.launched += len(ids)
        records = self._running[source, batch] = [self._known[source, i] for i in ids if (source, i) in self._known]
        for record in records:
            record.outcome, record.launched_ns = "runs", at_ns

    def _add(self, source: int, request: Request) -> Record:
        self._counts(source).requests += 1
        found = Record(self._name(source), source, request, self._stretch, self._stretch, self._clock_ns)
        found.loading = source in self._loading
        self._known[source, request.id] = found
        (self.profile_runs if found.loading else self.requests).append(found)
        return found

    def _name(self, source: int) -> str:
        return self._names.get(source, f"source {source}")

    def _counts(self, source: int) -> Counts:
        return Counts() if source in self._loading else self.models.setdefault(self._name(source), Counts())


def packages_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Packages of the scheduler that wrote it, where that is another one than ours.

    Raises ConfigError where the environment does not name that scheduler: a log must not choose what is imported.
    """
    wrote = checkpoint.origin.scheduler
    if not wrote:
        return ()
    if os.environ.get(SCHEDULER) != wrote:
        raise ConfigError(
            f"the event log is of scheduler '{wrote[:200]}', whose code is needed to read it; "
            f"where you trust that, set {SCHEDULER} to it"
        )
    return (wrote.partition(":")[0].partition(".")[0],)
