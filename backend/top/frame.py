"""One frame of `isochrone top`: a device's snapshot as lines of text. Pure; as cheap as text is.

Slack is time left to a deadline, negative where it is predicted to be missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from backend.fleet.snapshot import DeviceSnapshot, ModelState, RunningState

_MS = 1e6
_NAME_MAX = 28
_RUNNING_MAX = 32
_MODELS_MAX = 32
_RUNNING = ("running", "rows", "class", "ends in ms", "slack ms", "beside")
_WAITING = ("waiting", "requests", "rows by class", "req/s", "alone ms", "slo ms", "slack of a new one ms")


def frame(snapshot: DeviceSnapshot, before: DeviceSnapshot | None = None) -> list[str]:
    """Lines of a frame. before: an earlier snapshot, for rates."""
    return [
        *_head(snapshot),
        "",
        *_table(_RUNNING, [_batch(snapshot, i) for i in range(min(_RUNNING_MAX, len(snapshot.running)))]),
        *_more(len(snapshot.running) - _RUNNING_MAX, "batches"),
        "",
        *_table(_WAITING, [_queue(snapshot, model, before) for model in snapshot.models[:_MODELS_MAX]]),
        *_more(len(snapshot.models) - _MODELS_MAX, "models"),
    ]


def _head(snapshot: DeviceSnapshot) -> Iterator[str]:
    machine, running = snapshot.machine, len(snapshot.running)
    emulated = " (EMULATED)" if machine.emulated and "emulated" not in machine.name else ""
    at = datetime.fromtimestamp(snapshot.at_ns / 1e9).strftime("%H:%M:%S.%f")[:-3]
    yield f"{snapshot.device}  {machine.name}{emulated}  {at}"
    suspended = max(0, running - snapshot.lanes)
    waiting = sum(model.waiting_requests for model in snapshot.models)
    late = sum(1 for batch in snapshot.running if batch.slack_ns is not None and batch.slack_ns < 0)
    yield (
        f"{running - suspended} of {snapshot.lanes} lanes busy{f', {suspended} suspended' if suspended else ''}; "
        f"{waiting} requests wait; all is done in {_ms(snapshot.backlog_ns)} ms; {late} running batches will be late"
    )


def _batch(snapshot: DeviceSnapshot, index: int) -> tuple[str, ...]:
    batch = snapshot.running[index]
    others = [other for i, other in enumerate(snapshot.running) if i != index]
    slack = "–" if batch.slack_ns is None else _late(batch.slack_ns)
    return (
        _name(batch.model),
        str(batch.rows),
        str(batch.priority),
        _ms(batch.remaining_ns),
        slack,
        _co_runners(others) or "–",
    )


def _co_runners(others: Sequence[RunningState]) -> str:
    counts = Counter((other.model, other.rows) for other in others)
    names = [f"{_name(model)} × {rows}" + (f" ({n})" if n > 1 else "") for (model, rows), n in counts.items()]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _queue(snapshot: DeviceSnapshot, model: ModelState, before: DeviceSnapshot | None) -> tuple[str, ...]:
    solo_ns = model.solo_ns[0][1]
    classes = sorted(model.waiting.items(), key=lambda item: int(item[0]) if item[0].isdecimal() else 0)
    slo, slack = "–", "–"
    if model.slo_ns is not None:  # once all that is there now is done, and it has run alone
        slo, slack = _ms(model.slo_ns), _late(model.slo_ns - snapshot.backlog_ns - solo_ns - snapshot.overhead_ns)
    return (
        _name(model.name),
        str(model.waiting_requests),
        "  ".join(f"{priority}: {rows}" for priority, rows in classes) or "–",
        _rate(snapshot, model, before),
        _ms(solo_ns),
        slo,
        slack,
    )


def _rate(snapshot: DeviceSnapshot, model: ModelState, before: DeviceSnapshot | None) -> str:
    if before is None or before.publisher != snapshot.publisher or before.at_ns >= snapshot.at_ns:
        return "–"
    known = {(each.name, each.version): each.arrivals for each in before.models}
    earlier = known.get((model.name, model.version))
    if earlier is None or earlier > model.arrivals:
        return "–"
    return f"{(model.arrivals - earlier) / (snapshot.at_ns - before.at_ns) * 1e9:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as they need be; the first and the last to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if i == 0 or not _is_number(header[i]) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    if not rows:
        yield "–"


def _is_number(column: str) -> bool:
    return column not in ("beside", "rows by class")


def _more(number: int, what: str) -> list[str]:
    return [f"… and {number} more {what}"] if number > 0 else []


def _late(slack_ns: int) -> str:
    return f"{slack_ns / _MS:+,.1f}"


def _ms(span_ns: int) -> str:
    return f"{span_ns / _MS:,.1f}"


def _name(model: str) -> str:
    """Cut to a length, without what a terminal would take for a command."""
    printable = "".join(c if c.isprintable() else "?" for c in model)
    return printable if len(printable) <= _NAME_MAX else f"{printable[: _NAME_MAX - 1]}…"
