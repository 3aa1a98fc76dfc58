"""The demo's table, a few lines and a sentence. Nothing here measures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from backend.load.arrivals import Traffic
from backend.load.outcomes import (
    MeasuredLoad,
    Outcome,
    Summary,
    by_class,
    by_model,
    lateness_ms,
    summarise,
)
from backend.load.server_metrics import MetricCounts

Mode = Literal["off", "on"]
MODES: tuple[Mode, Mode] = ("off", "on")
_COUNTS = ("requests", "met", "missed", "rejected", "failed")
_SAME_POINTS = 1.0  # differences of met shares below this many percentage points are not called one
_LATE_MS = 10.0
_ALL = "all"


def _outcomes(measured: Iterable[MeasuredLoad], mode: Mode) -> list[Outcome]:
    return [o for m in measured if m.target == mode for o in m.outcomes]


def _figures(measured: Sequence[MeasuredLoad]) -> dict[str, dict[Mode, Summary]]:
    """Summaries by model, by class and of all requests, each by mode."""
    found: dict[str, dict[Mode, Summary]] = {}
    for mode in MODES:
        if outcomes := _outcomes(measured, mode):
            seconds = sum(m.seconds for m in measured if m.target == mode)
            classes = {f"class {c}": summary for c, summary in by_class(outcomes, seconds).items()}
            rows = by_model(outcomes, seconds) | classes | {_ALL: summarise(outcomes, seconds)}
            for name, summary in rows.items():
                found.setdefault(name, {})[mode] = summary
    return found


def table(models: Sequence[Traffic], measured: Sequence[MeasuredLoad], slo_factor: float) -> Table:
    """Shows a line per mode for each model, each class, and in all."""
    shown = Table(
        title=f"deadlines at {slo_factor:g} × a model's own latency, the same arrivals in both modes",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    found = _figures(measured)
    notes = {m.model: f"class {m.priority_class}, {m.slo_ms:.0f} ms" for m in models}
    counts = _COUNTS if any(s.failed for s in found[_ALL].values()) else _COUNTS[:-1]
    for name in ("model", "aware", *counts, "p50 ms", "p99 ms", "met %", "goodput/s"):
        shown.add_column(name, justify="left" if name in ("model", "aware") else "right")
    for name in sorted(found, key=[*notes, *sorted(found.keys() - notes.keys() - {_ALL}), _ALL].index):
        lines = (name, notes.get(name, "")) if len(found[name]) > 1 else (f"{name} {notes.get(name, '')}",)
        for line, (mode, s) in zip(lines, found[name].items(), strict=True):
            figures = (s.p50_ms, s.p99_ms, 100 * s.met_share, s.goodput_per_s)
            cells = [*(str(getattr(s, count)) for count in counts), *(f"{f:.1f}" for f in figures)]
            shown.add_row(line, mode, *cells, style="bold" if name == _ALL else None)
        shown.add_section()
    return shown


def details(measured: Sequence[MeasuredLoad], counts: Mapping[Mode, MetricCounts]) -> Iterator[str]:
    """Lines on decisions, how well they were predicted, where the time went, whether the generator kept up."""
    late_ms = 0.0
    for mode in MODES:
        if outcomes := _outcomes(measured, mode):
            late_ms = max(late_ms, lateness_ms(outcomes))
            if counts[mode].total("isochrone_batches_total"):
                yield f"{mode}: {_decisions(counts[mode])}"
                yield f"{mode}: {_times(counts[mode], outcomes)}"
    if late_ms > _LATE_MS:
        yield f"note: the load generator sent 1 % of its requests {late_ms:.0f} ms late or more; latency counts it"


def _decisions(counts: MetricCounts) -> str:
    kinds = ("launch", "hold", "split", "reject")
    decided = ", ".join(f"{kind} {counts.total('isochrone_decisions_total', decision=kind):.0f}" for kind in kinds)
    held = counts.total("isochrone_bound_held_total", held="true")
    bounds = held + counts.total("isochrone_bound_held_total", held="false")
    bound_held = _percent(held / bounds if bounds else math.nan)
    error = "isochrone_prediction_error_ratio"
    return (
        f"decisions: {decided}; prediction error: mean {_percent(counts.mean(error))}, "
        f"p50 {_percent(counts.quantile(error, 0.5))}; upper bound held for {bound_held} of batches; "
        f"launched without the scheduler: {counts.total('isochrone_fail_open_total'):.0f}"
    )


def _times(counts: MetricCounts, outcomes: Sequence[Outcome]) -> str:
    answered = [o.latency_ms for o in outcomes if o.status == "ok"]
    at_client_ms = sum(answered) / len(answered) if answered else math.nan
    return (
        f"mean times: queue {counts.mean('isochrone_queue_us') / 1e3:.1f} ms, "
        f"batch {counts.mean('isochrone_execution_us') / 1e3:.1f} ms, at the client {at_client_ms:.1f} ms; "
        f"batches of {counts.mean('isochrone_batch_size'):.1f}, "
        f"slowdown {counts.mean('isochrone_slowdown_ratio'):.2f}; "
        f"decision {counts.mean('isochrone_decision_us'):.0f} µs; 99 % sent within {lateness_ms(outcomes):.1f} ms"
    )


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.0f} %"


def verdict(measured: Sequence[MeasuredLoad]) -> str:
    """Tells in a sentence what the numbers mean, also where they favour the stock order."""
    if {m.target for m in measured} != set(MODES):
        return "There is nothing to compare yet: only one mode has run."
    found = _figures(measured)
    off, on = (found[_ALL][mode] for mode in MODES)
    points = 100 * (on.met_share - off.met_share)
    than = "about as many as" if abs(points) < _SAME_POINTS else "more than" if points > 0 else "fewer than"
    classes = [f"{name} {_off_to_on(both)}" for name, both in sorted(found.items()) if name.startswith("class ")]
    by_class_too = f"; {', '.join(classes)}" if len(classes) > 1 else ""
    halves = [
        _figures([m for m in measured if m.repeat == half])[_ALL] for half in sorted({m.repeat for m in measured})
    ]
    both_halves = len(halves) > 1 and all(len(half) == len(MODES) for half in halves)
    by_half = f"; in each half of the load, {' and '.join(map(_off_to_on, halves))}" if both_halves else ""
    return (
        f"With the scheduler on, {100 * on.met_share:.0f} % of requests met their deadline ({on.goodput_per_s:.1f}/s), "
        f"{than} the {100 * off.met_share:.0f} % with it off ({off.goodput_per_s:.1f}/s){by_class_too}{by_half}."
    )


def _off_to_on(both: Mapping[Mode, Summary]) -> str:
    return " → ".join(_percent(both[mode].met_share) if mode in both else "–" for mode in MODES)
