"""Writes down all that the scheduler's decisions follow from (`ISOCHRONE_EVENTS=FILE`), so that the core can replay
them; see `backend.scheduler_process.event_file` for the lines.

A full file becomes FILE.1, in place of the last. Each file begins with a checkpoint, the scheduler's whole state, and
so does each quarter of one: a file can be replayed without the others, a late request without all before it, and what
follows a gap at all. Without checkpoints none of it could, for what the predictor learned since the start determines
each decision. The state is copied between two decisions, at a moment without events, in some 3 ms; all else is done on
the writer's thread.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import logging
import os
import pickle
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from backend.scheduler.core import Scheduler
from backend.scheduler_process import snapshot
from backend.scheduler_process.background_writer import DEVICE, BackgroundWriter, BoundedFile, log_file
from backend.scheduler_process.event_file import FORMAT, MAX_LINE_BYTES, VERSION, Checkpoint, Entry, Origin, encode
from backend.scheduler_process.scheduler_factory import VARIABLE as SCHEDULER

VARIABLE = "ISOCHRONE_EVENTS"
MAX_BYTES = 32 << 20
MAX_QUEUED = 1 << 15
_RETRY_NS = 10_000_000_000
"""Between two checkpoints that follow a loss."""
_log = logging.getLogger("isochrone.scheduler")


class _State(NamedTuple):
    """A checkpoint to be written. number: of it; pickled: of this process for this process, the quickest copy."""

    number: int
    pickled: bytes
    at_ns: int
    unix_ns: int
    lost: int


class EventLog:
    """Appends to `path`. After a loss nothing is written until the next checkpoint: it could not be replayed.

    One thread decides and calls the methods, the other one writes; each sets only what is its own.
    """

    def __init__(self, path: Path, origin: Origin, max_bytes: int = MAX_BYTES) -> None:
        """Raises OSError; BlockingIOError where another process writes to the file."""
        self._file, self._max_bytes, self._origin = BoundedFile(path, max_bytes), max_bytes, origin
        self._lock: int | None = _lock(path)
        # The deciding thread's
        self._complete = False
        self._lost = 0
        self._checkpoints = 0
        self._checkpoint_ns = -_RETRY_NS
        # The writing thread's: numbers of the checkpoint that was written last, and of the one that it failed after, or
        # that has so much after it that the next is due
        self._writing = self._failed = self._due = 0
        self._dropped = self._stretch_bytes = 0
        self._warned = False
        self._writer = BackgroundWriter[Entry | _State]("isochrone-events", self._write, MAX_QUEUED)

    def put(self, entry: Entry) -> None:
        """Write it soon, or count it as lost."""
        if self._complete and (self._failed == self._checkpoints or not self._writer.put(entry)):
            self._complete = False
        if not self._complete:
            self._lost += 1

    def checkpoint_due(self, now_ns: int) -> bool:
        """True where the last one is far back, or lines were lost a while ago and there is room for others."""
        if self._complete and self._failed != self._checkpoints:
            return self._due == self._checkpoints
        return now_ns >= self._checkpoint_ns + _RETRY_NS and len(self._writer) <= MAX_QUEUED // 2

    def checkpoint(self, scheduler: Scheduler, now_ns: int) -> None:
        """Copy the scheduler's state; it is written in its turn."""
        self._checkpoint_ns = now_ns
        self._checkpoints += 1
        pickled = pickle.dumps(scheduler, pickle.HIGHEST_PROTOCOL)
        self._complete = self._writer.put(_State(self._checkpoints, pickled, now_ns, time.time_ns(), self._lost))
        if self._complete:
            self._lost = 0

    def close(self) -> None:
        """Write what is queued."""
        self._writer.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # On the writer's thread

    def _write(self, items: Sequence[Entry | _State]) -> None:
        lines: list[bytes] = []
        for item in items:
            if isinstance(item, _State):
                self._append(lines)
                lines = []
                self._begin(item)
            else:
                lines.append(encode(item) + b"\n")
        self._append(lines)

    def _append(self, lines: list[bytes]) -> None:
        """After a checkpoint that was written."""
        if self._failed == self._writing or not lines:
            self._dropped += len(lines)
            return
        data = b"".join(lines)
        try:
            self._stretch_bytes += len(data)
            if self._stretch_bytes > self._max_bytes // 4:
                self._due = self._writing
            if self._stretch_bytes > self._max_bytes // 2:
                raise OSError(None, "no moment was without events, so that no checkpoint could be taken")
            self._file.path.stat()  # raises where it was moved away: a new file must not begin in the middle
            self._file.append(data)
        except OSError as error:
            self._fail(str(error.strerror), len(lines))

    def _begin(self, state: _State) -> None:
        """A file, or a stretch of one that can be replayed without what was before."""
        self._writing, self._stretch_bytes = state.number, 0
        lost, self._dropped = state.lost + self._dropped, 0
        try:
            data = self._encoded(state, lost)
            if self._file.is_full(len(data) + self._max_bytes // 4):
                self._file.rotate()
            self._unlock()
            self._lock = _lock(self._file.path)
            self._file.append(data)
            self._warned = False
        except OSError as error:
            self._fail(str(error.strerror), lost)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:  # another's scheduler, no plain data
            self._fail(str(error), lost)

    def _encoded(self, state: _State, lost: int) -> bytes:
        scheduler = pickle.loads(state.pickled)
        found = snapshot.encode(scheduler, pause=lambda: time.sleep(0))  # the decisions' thread goes first
        raw = msgspec.Raw(encode(found))
        line = encode(Checkpoint(FORMAT, VERSION, self._origin, state.at_ns, state.unix_ns, raw, lost)) + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"a checkpoint of {len(line) >> 20} MiB is longer than a line may be")
        return _broken_line_before(self._file.path) + line

    def _fail(self, why: str, lost: int) -> None:
        self._dropped += lost
        self._failed = self._writing
        if not self._warned:  # once per trouble
            _log.warning("events cannot be written to '%s': %s", self._file.path, why)
            self._warned = True


def _broken_line_before(path: Path) -> bytes:
    """The end of a line that a killed process left unfinished."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return b"" if file.read(1) == b"\n" else b"\n"
    return b""


def _lock(path: Path) -> int:
    """Keeps other devices' schedulers from this file. Raises OSError, BlockingIOError where one writes to it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def event_log_of_environment(device: str, lanes: int, cores: int | None) -> EventLog | None:
    """An event log, where the environment asks for one and it can be written."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    path = log_file(named, device)
    try:
        version = importlib.metadata.version("isochrone")
    except importlib.metadata.PackageNotFoundError:  # installed by copying
        version = "unknown"
    scheduler = os.environ.get(SCHEDULER) or None
    origin = Origin(version, device, lanes, cores, scheduler, os.getpid(), time.time_ns())
    try:
        return EventLog(path, origin)
    except BlockingIOError:
        _log.warning(
            "events are not written: another device's scheduler writes to '%s'; name the file with %s in %s",
            path,
            DEVICE,
            VARIABLE,
        )
    except OSError as error:
        _log.warning("events cannot be written to '%s': %s", path, error.strerror)
    return None
