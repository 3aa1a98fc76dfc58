"""The event log's format: one JSON object per line, told apart by `line`. Reading it back, whatever is in the file.

    checkpoint  the scheduler's whole state and the clocks; every file begins with one, replay starts at any
    event       one event of a model's process, and the commands that answered it
    leave       a model's process is gone, and the commands that followed
    reject      a decision though nothing happened: on requests that became late, or on an idle device that was held
    train       the online trainer let the predictor learn what ended
    save        the predictor's state was read, which makes it learn the samples that it had put off

Times are nanoseconds of CLOCK_MONOTONIC but for `unix_ns`. Events and commands are those of
`backend.scheduler.messages`, as arrays with their name first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from backend.errors import ConfigError
from backend.scheduler.messages import Command, Event
from backend.scheduler_process.background_writer import older

FORMAT, VERSION = "isochrone-events", 2
"""Raised when a message, or what the scheduler's state is made of, changes: a line is never guessed at."""
MAX_LINE_BYTES = 32 << 20
"""A checkpoint beside 100,000 waiting requests takes a third of it."""

FILE_BYTES_MAX = 1 << 28
"""Of a file that is read; the scheduler's process begins another one far below that."""


class _Line(msgspec.Struct, frozen=True, tag_field="line", omit_defaults=True):
    """Base of all lines."""


class Origin(msgspec.Struct, frozen=True):
    """The scheduler's process that wrote a line. cores: None where a lane is no core; scheduler: as in
    `ISOCHRONE_SCHEDULER`, None for ours.
    """

    isochrone: str
    device: str
    lanes: int
    cores: int | None
    scheduler: str | None
    pid: int
    started_ns: int
    """Unix time; with the process id it tells one process from all others."""


class Checkpoint(_Line, frozen=True, tag="checkpoint"):
    """lost: lines that were given up since the line before. state: a `backend.scheduler_process.snapshot.Snapshot`."""

    format: str
    version: int
    origin: Origin
    at_ns: int
    unix_ns: int
    state: msgspec.Raw
    lost: int = 0


class Handled(_Line, frozen=True, tag="event"):
    """refused: the sentence, where the event could not be."""

    at_ns: int
    source: int
    event: Event
    commands: tuple[Command, ...] = ()
    refused: str | None = None


class Left(_Line, frozen=True, tag="leave"):
    at_ns: int
    source: int
    commands: tuple[Command, ...] = ()


class Woken(_Line, frozen=True, tag="reject"):
    at_ns: int
    commands: tuple[Command, ...] = ()


class Trained(_Line, frozen=True, tag="train"):
    pass


class Saved(_Line, frozen=True, tag="save"):
    pass


Entry = Handled | Left | Woken | Trained | Saved
_BEGINS = "the log begins there"
encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Checkpoint | Entry] = msgspec.json.Decoder(Checkpoint | Entry).decode


class Stretch(NamedTuple):
    """Lines that can be replayed in one go. gap: why nothing is known of the time before; None: it follows the last."""

    checkpoint: Checkpoint
    entries: list[Entry]
    gap: str | None


def read_stretches(path: Path) -> Iterator[Stretch]:
    """The log's stretches, the file that was set aside first; one is in memory at a time.

    Raises ConfigError on a file that cannot be read or is no event log.
    """
    current: Stretch | None = None
    gap: str | None = _BEGINS
    found = 0
    for where, line in _lines(path):
        if current is not None and isinstance(line, str | Checkpoint):
            found += 1
            yield current
        if isinstance(line, str):
            current, gap = None, f"{where} {line}"
        elif isinstance(line, Checkpoint):
            current, gap = Stretch(line, [], gap or _gap(current, line)), None
        elif current is not None:
            current.entries.append(line)
    if current is not None:
        yield current
    elif not found:
        why = "it has no checkpoint" if gap in (None, _BEGINS) else gap
        raise ConfigError(f"'{path}' is no event log that can be replayed: {why}")


def _gap(before: Stretch | None, found: Checkpoint) -> str | None:
    if before is not None and before.checkpoint.origin != found.origin:
        return "another scheduler's process began there"
    return f"{found.lost} lines could not be written before that" if found.lost else None


def _lines(path: Path) -> Iterator[tuple[str, Checkpoint | Entry | str]]:
    """Each line with where it stands; a str says why one cannot be used."""
    files = [file for file in (older(path), path) if file.exists()]
    if not files:
        raise ConfigError(f"'{path}' cannot be read: there is no such file")
    for file in files:
        try:
            with file.open("rb") as opened:
                number = 0
                if os.fstat(opened.fileno()).st_size > FILE_BYTES_MAX:
                    raise ConfigError(f"'{file}' is larger than {FILE_BYTES_MAX >> 20} MiB, which no event log is")
                while data := opened.readline(MAX_LINE_BYTES + 1):
                    number += 1
                    yield f"{file.name}, line {number}", _parse(data)
                    while data and not data.endswith(b"\n"):  # the rest of one that is too long
                        data = opened.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise ConfigError(f"'{file}' cannot be read: {error.strerror}") from None


def _parse(data: bytes) -> Checkpoint | Entry | str:
    if len(data) > MAX_LINE_BYTES:
        return f"is longer than {MAX_LINE_BYTES >> 20} MiB"
    if not data.endswith(b"\n"):
        return "is cut short"
    try:
        line = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return f"cannot be read: {error}"
    if isinstance(line, Checkpoint) and (line.format, line.version) != (FORMAT, VERSION):
        return f"is {line.format} version {line.version}, not {FORMAT} version {VERSION}"
    return line
