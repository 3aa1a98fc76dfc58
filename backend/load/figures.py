"""Figures of a comparison per server and load, as a table and as files. Nothing here measures."""

from __future__ import annotations

import csv
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table

from backend.errors import ConfigError
from backend.load.outcomes import MeasuredLoad, Summary, by_class, by_model, lateness_ms, summarise

RESULTS, REQUESTS = "results.json", "requests.csv"
_COLUMNS = (
    "server", "load", "repeat", "model", "priority_class", "slo_ms", "intended_s", "sent_s", "answered_s", "status",
    "error",
)  # fmt: skip


class MeasuredPoint(msgspec.Struct, frozen=True):
    """One load on one server once. sent_late_ms: p99 of how late the generator itself was."""

    target: str
    load: float
    repeat: int
    seconds: float
    all: Summary
    classes: dict[str, Summary]
    models: dict[str, Summary]
    sent_late_ms: float


def points(measured: Sequence[MeasuredLoad]) -> list[MeasuredPoint]:
    return [_point(m) for m in measured]


def _point(m: MeasuredLoad) -> MeasuredPoint:
    return MeasuredPoint(
        m.target,
        m.load,
        m.repeat,
        m.seconds,
        summarise(m.outcomes, m.seconds),
        by_class(m.outcomes, m.seconds),
        by_model(m.outcomes, m.seconds),
        lateness_ms(m.outcomes),
    )


class Cell:
    """All repeats of one load on one server."""

    def __init__(self, found: Sequence[MeasuredPoint]) -> None:
        self._found = found

    def __bool__(self) -> bool:
        return bool(self._found)

    def median(self, of: Callable[[MeasuredPoint], float]) -> float:
        return statistics.median(map(of, self._found))

    def range(self, of: Callable[[MeasuredPoint], float]) -> tuple[float, float]:
        values = list(map(of, self._found))
        return min(values), max(values)

    def met(self) -> float:
        """Share of deadlines kept."""
        return self.median(lambda p: p.all.met_share)

    def class_met(self, priority: str) -> float:
        return self.median(lambda p: p.classes[priority].met_share if priority in p.classes else float("nan"))

    def total(self, of: Callable[[MeasuredPoint], int]) -> int:
        return sum(map(of, self._found))


def cell(found: Sequence[MeasuredPoint], target: str, load: float) -> Cell:
    return Cell([p for p in found if p.target == target and p.load == load])


def table(found: Sequence[MeasuredPoint], targets: Sequence[str]) -> Table:
    """Medians over the repeats; of deadlines the range as well. Latencies from the planned instant."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    classes = sorted({c for p in found for c in p.classes}, key=int)
    shown.add_column("load", justify="right")
    shown.add_column("server")
    figures = ("rejected", "failed", "p50 ms", "p99 ms", "goodput/s")
    for name in ("requests", "met %", *(f"class {c} met %" for c in classes), *figures):
        shown.add_column(name, justify="right")
    for load in sorted({p.load for p in found}):
        for target in targets:
            if here := cell(found, target, load):
                low, high = here.range(lambda p: 100 * p.all.met_share)
                spread = f" ({low:.0f}–{high:.0f})" if low < high else ""
                shown.add_row(
                    f"{load:g}",
                    target,
                    f"{here.total(lambda p: p.all.requests):,}",
                    f"{100 * here.met():.1f}{spread}",
                    *(f"{100 * here.class_met(c):.1f}" for c in classes),
                    f"{here.total(lambda p: p.all.rejected):,}",
                    f"{here.total(lambda p: p.all.failed):,}",
                    f"{here.median(lambda p: p.all.p50_ms):.1f}",
                    f"{here.median(lambda p: p.all.p99_ms):.1f}",
                    f"{here.median(lambda p: p.all.goodput_per_s):.1f}",
                )
        shown.add_section()
    return shown


def make_folder(folder: Path) -> None:
    """Before a load, whose results are to go there. Raises ConfigError where the folder takes nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"'{folder}' cannot be written to: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"'{folder}' cannot be written to: no permission")


def write(
    folder: Path, found: Sequence[MeasuredPoint], measured: Sequence[MeasuredLoad], conditions: dict[str, Any]
) -> None:
    """The figures, and every request. Raises ConfigError where the folder takes nothing."""
    try:
        data = msgspec.json.encode({"conditions": conditions, "points": found})
        (folder / RESULTS).write_bytes(msgspec.json.format(data) + b"\n")
        with (folder / REQUESTS).open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(_COLUMNS)
            for m in measured:
                rows.writerows(
                    (
                        m.target, f"{m.load:g}", m.repeat, o.model, o.priority, f"{o.slo_ms:g}", f"{o.intended_s:.6f}",
                        f"{o.sent_s:.6f}", f"{o.answered_s:.6f}", o.status, o.error,
                    )
                    for o in m.outcomes
                )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"'{folder}' cannot be written to: {error.strerror}") from None
