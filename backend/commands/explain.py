"""`isochrone explain`: an event log in, words out. The reasons come from `backend.scheduler_process.explanation`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backend.commands.explanation_words import clock, words
from backend.errors import ConfigError
from backend.progress_bar import console
from backend.scheduler_process.explainer import explain
from backend.scheduler_process.request_index import Counts, Record, RequestIndex

_WORST = 10
_AROUND = 20
_MS = 1e6
_SECONDS_MAX = 2**33


@dataclass(frozen=True)
class ExplainOptions:
    """As the user wrote them. request: SOURCE.ID, or the ID where it is one model's; at: a time."""

    log: Path
    request: str | None = None
    model: str | None = None
    at: str | None = None
    json: bool = False


class _Summary(msgspec.Struct):
    """Times are Unix time in nanoseconds."""

    begins_ns: int
    ends_ns: int
    device: str
    lanes: int
    written_by: str
    models: dict[str, Counts]
    gaps: list[tuple[int, str]]
    worst: list[_Row]


class _Row(msgspec.Struct):
    number: str
    model: str
    arrived_ns: int
    priority: int
    rows: int
    outcome: str
    slo_ms: float | None
    late_ms: float | None


def run_explain(options: ExplainOptions) -> None:
    """Raises ConfigError on options or a log that cannot be used."""
    index = RequestIndex(options.log)
    if options.request is not None:
        found = explain(options.log, _wanted(index, options))
        _print(options, found, words(found))
    elif options.model is not None or options.at is not None:
        rows = list(map(_row, _around(index, options)))
        _print(options, rows, [_table(rows)])
    else:
        summary = _summarise(index)
        _print(options, summary, _summary_words(summary, index))


def _print(options: ExplainOptions, facts: object, lines: Iterable[str | Table]) -> None:
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(facts)).decode() + "\n")
        return
    out: Console = console()
    for part in lines:
        out.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))


# Which requests


def _wanted(index: RequestIndex, options: ExplainOptions) -> Record:
    named = options.request or ""
    found = [r for r in index.requests if named in (r.number, str(r.request.id))]
    if options.model is not None:
        found = [r for r in found if r.model == options.model]
    numbers = {r.number: r for r in found}
    if len(numbers) > 1:
        several = ", ".join(f"{number} ({r.model})" for number, r in list(numbers.items())[:_WORST])
        raise ConfigError(f"--request {named} is several models' request: say which of {several}")
    if not found:
        raise ConfigError(f"request {named} is not in {_what_is_there(index, options)}")
    if options.at is not None:  # numbers begin anew with each scheduler
        at_ns = _instant_ns(options.at, index.ends_ns)
        return min(found, key=lambda r: abs(r.request.arrival_ns + r.clock_ns - at_ns))
    return found[-1]


def _what_is_there(index: RequestIndex, options: ExplainOptions) -> str:
    """The rest of a sentence, and where a request that came before the log's beginning is."""
    said = f"'{options.log}', which holds what was from {clock(index.begins_ns)} to {clock(index.ends_ns)}"
    source, _, number = (options.request or "").partition(".")
    if source.isdecimal() and number.isdecimal():
        ids = [r.request.id for r in index.requests if r.source == int(source)]
        if ids and int(number) < min(ids):
            return f"{said}; it lies before that, for that model's first request there is {source}.{min(ids)}"
    return f"{said}; `--model M --at TIME` lists requests with their numbers"


def _around(index: RequestIndex, options: ExplainOptions) -> list[Record]:
    found = [r for r in index.requests if options.model in (None, r.model)]
    if not found:
        models = ", ".join(sorted(index.models)) or "none"
        raise ConfigError(f"model '{options.model}' has no request in '{options.log}'; it has requests of: {models}")
    if options.at is None:
        return found[-_AROUND:]
    at_ns = _instant_ns(options.at, index.ends_ns)
    nearest = sorted(found, key=lambda r: abs(r.request.arrival_ns + r.clock_ns - at_ns))[:_AROUND]
    return sorted(nearest, key=lambda r: r.request.arrival_ns + r.clock_ns)


def _instant_ns(text: str, day_ns: int) -> int:
    """Unix time in nanoseconds. text: seconds of it, an ISO date and time, or a time of the log's last day; without a
    zone they are this machine's.
    """
    with suppress(ValueError, OverflowError):
        if 0.0 <= (seconds := float(text)) < _SECONDS_MAX:
            return round(seconds * 1e9)
    with suppress(ValueError, OverflowError):
        day = datetime.fromtimestamp(day_ns / 1e9).date()
        return round(datetime.combine(day, time.fromisoformat(text)).timestamp() * 1e9)
    with suppress(ValueError, OverflowError):
        return round(datetime.fromisoformat(text).timestamp() * 1e9)
    raise ConfigError(
        f"--at must be a time such as 14:03:27.5, 2026-01-31T14:03:27 or seconds of Unix time, got '{text}'"
    )


def _row(record: Record) -> _Row:
    request, late_ns = record.request, record.late_ns
    slo_ms = None if request.deadline_ns is None else (request.deadline_ns - request.arrival_ns) / _MS
    return _Row(
        record.number,
        record.model,
        request.arrival_ns + record.clock_ns,
        request.priority,
        request.rows,
        record.outcome,
        slo_ms,
        None if late_ns is None else late_ns / _MS,
    )


def _table(rows: Sequence[_Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("request", "model", "arrived"):
        table.add_column(name, no_wrap=True)
    for name in ("class", "rows", "deadline ms", "outcome", "late by ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        late = "–" if row.late_ms is None or row.late_ms <= 0.0 else f"{row.late_ms:.2f}"
        slo = "–" if row.slo_ms is None else f"{row.slo_ms:.1f}"
        arrived = clock(row.arrived_ns)
        table.add_row(row.number, row.model, arrived, str(row.priority), str(row.rows), slo, row.outcome, late)
    return table


# The whole log


def _summarise(index: RequestIndex) -> _Summary:
    origin = index.checkpoints[-1].origin
    late = sorted((r for r in index.requests if (r.late_ns or 0) > 0), key=lambda r: -(r.late_ns or 0))
    return _Summary(
        index.begins_ns,
        index.ends_ns,
        origin.device,
        origin.lanes,
        origin.isochrone,
        index.models,
        index.gaps,
        list(map(_row, late[:_WORST])),
    )


def _summary_words(summary: _Summary, index: RequestIndex) -> Iterator[str | Table]:
    seconds = (summary.ends_ns - summary.begins_ns) / 1e9
    yield (
        f"{clock(summary.begins_ns)} to {clock(summary.ends_ns)} ({seconds:.1f} s), device {summary.device}, "
        f"{summary.lanes} lanes, written by version {summary.written_by}"
    )
    for at_ns, why in index.gaps:
        yield f"something is missing before {clock(at_ns)}: {why}"
    names = Counts.__struct_fields__
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for model, counts in sorted(summary.models.items()):
        table.add_row(model, *(f"{getattr(counts, name):,}" for name in names))
    if len(summary.models) > 1:
        table.add_row("all", *(f"{sum(getattr(c, name) for c in summary.models.values()):,}" for name in names))
    yield table
    yield "held: batches that waited though a lane was free; split: launched smaller than what waited; late: requests"
    if summary.worst:
        yield "the latest; `--request` explains one:"
        yield _table(summary.worst)
    else:
        yield "no request was answered late; `--model M --at TIME` lists requests with their numbers"
