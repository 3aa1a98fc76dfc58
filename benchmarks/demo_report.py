"""The comparison as a table, a few lines and a sentence; and as plain data for a file. Nothing here measures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from backend.load.outcomes import Outcome, Summary, lateness_ms, summarise
from backend.load.server_metrics import MetricCounts
from benchmarks.comparison import MODES, SLO_FACTOR, Comparison, Mode, Segment

_COUNTS = ("requests", "met", "missed", "rejected", "failed")
_FIGURES = ("p50 ms", "p99 ms", "met %", "goodput/s")
_SAME_POINTS = 1.0  # differences of met shares below this many percentage points are not called one
_LATE_MS = 10.0


@dataclass(frozen=True)
class _Row:
    """note: on the second line."""

    name: str
    note: str
    summaries: dict[Mode, Summary]


def table(comparison: Comparison) -> Table:
    """Per model, per class and in all, a line per mode."""
    shown = Table(
        title=f"deadlines at {SLO_FACTOR:g} × a model's own latency, the same arrivals in both modes",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    rows = list(_rows(comparison))
    counts = _COUNTS if any(s.failed for row in rows for s in row.summaries.values()) else _COUNTS[:-1]
    for name in ("model", "aware", *counts, *_FIGURES):
        shown.add_column(name, justify="left" if name in ("model", "aware") else "right")
    for row in rows:
        names = (row.name, row.note) if len(row.summaries) > 1 else (f"{row.name} {row.note}",)
        for name, (mode, s) in zip(names, row.summaries.items(), strict=True):
            figures = (s.p50_ms, s.p99_ms, 100 * s.met_share, s.goodput_per_s)
            cells = [*(str(getattr(s, count)) for count in counts), *(f"{f:.1f}" for f in figures)]
            shown.add_row(name, mode, *cells, style="bold" if row.name == "all" else None)
        shown.add_section()
    return shown


def _rows(comparison: Comparison) -> Iterator[_Row]:
    for t in comparison.traffic:
        yield _row(comparison, t.model, {t.model}, f"class {t.priority}, {t.slo_ms:.0f} ms")
    for priority in sorted({t.priority for t in comparison.traffic}):
        models = {t.model for t in comparison.traffic if t.priority == priority}
        yield _row(comparison, f"class {priority}", models)
    yield _row(comparison, "all", {t.model for t in comparison.traffic})


def _row(comparison: Comparison, name: str, models: set[str], note: str = "") -> _Row:
    summaries = {
        mode: summarise((o for o in comparison.outcomes(mode) if o.model in models), comparison.seconds(mode))
        for mode in MODES
        if comparison.outcomes(mode)
    }
    return _Row(name, note, summaries)


def details(comparison: Comparison) -> list[str]:
    """What the scheduler decided, how well it predicted, where the time went, whether the generator kept up."""
    lines = []
    for mode in MODES:
        outcomes, counts = comparison.outcomes(mode), comparison.counts[mode]
        if outcomes and counts.total("isochrone_batches_total"):
            lines += [f"{mode}: {_decisions(counts)}", f"{mode}: {_times(counts, outcomes)}"]
    late_ms = max((lateness_ms(comparison.outcomes(mode)) for mode in MODES if comparison.outcomes(mode)), default=0.0)
    if late_ms > _LATE_MS:
        lines.append(
            f"note: the load generator sent 1 % of its requests {late_ms:.0f} ms late or more; latency counts it"
        )
    return lines


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


def verdict(segments: Iterable[Segment]) -> str:
    """What the numbers mean, in a sentence; also where they favour the stock order."""
    by_mode: dict[Mode, list[Segment]] = {mode: [s for s in segments if s.mode == mode] for mode in MODES}
    if not all(by_mode.values()):
        return "There is nothing to compare yet: only one mode has run."
    off, on = (summarise(_outcomes(by_mode[mode]), sum(s.seconds for s in by_mode[mode])) for mode in MODES)
    points = 100 * (on.met_share - off.met_share)
    than = "about as many as" if abs(points) < _SAME_POINTS else "more than" if points > 0 else "fewer than"
    return (
        f"With the scheduler on, {100 * on.met_share:.0f} % of requests met their deadline ({on.goodput_per_s:.1f}/s), "
        f"{than} the {100 * off.met_share:.0f} % with it off ({off.goodput_per_s:.1f}/s){_by_class(by_mode)}"
        f"{_by_half(by_mode)}."
    )


def _by_class(by_mode: dict[Mode, list[Segment]]) -> str:
    classes = sorted({o.priority for segments in by_mode.values() for o in _outcomes(segments)})
    if len(classes) < 2:
        return ""
    shares = [
        f"class {priority} "
        + " → ".join(
            f"{100 * _share(o for o in _outcomes(by_mode[mode]) if o.priority == priority):.0f} %" for mode in MODES
        )
        for priority in classes
    ]
    return "; " + ", ".join(shares)


def _by_half(by_mode: dict[Mode, list[Segment]]) -> str:
    halves = {s.half for s in by_mode["off"]} & {s.half for s in by_mode["on"]}
    if len(halves) < 2:
        return ""
    shares = [
        " → ".join(f"{100 * _share(_outcomes(_half(by_mode[mode], half))):.0f} %" for mode in MODES)
        for half in sorted(halves)
    ]
    return "; in each half of the load, " + " and ".join(shares)


def _half(segments: Iterable[Segment], half: int) -> list[Segment]:
    return [s for s in segments if s.half == half]


def _outcomes(segments: Iterable[Segment]) -> Iterator[Outcome]:
    for segment in segments:
        yield from segment.outcomes


def _share(outcomes: Iterable[Outcome]) -> float:
    return summarise(outcomes, 1.0).met_share


def as_data(comparison: Comparison, conditions: dict[str, Any]) -> dict[str, Any]:
    """For a JSON file: conditions, summaries, every outcome, the server's counts."""
    return {
        "conditions": conditions,
        "traffic": [asdict(t) for t in comparison.traffic],
        "summaries": {
            row.name: {mode: asdict(summary) for mode, summary in row.summaries.items()} for row in _rows(comparison)
        },
        "segments": [asdict(segment) for segment in comparison.segments],
        "metrics": {mode: comparison.counts[mode].flat() for mode in MODES},
    }
