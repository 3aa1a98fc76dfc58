"""Lays a report out: which figures stand where, under which heading, rounded how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from backend.reporting.attribution import BY_OTHERS, CAUSES
from backend.reporting.document import Block, Bullets, Heading, Paragraph, Plot, TextTable
from backend.reporting.figures import Figures, Lateness
from backend.reporting.recording import Recording
from backend.reporting.words import MEANINGS, clock, seconds

ROWS_MAX = 20
"""Of a table of pairs or of causes by model."""
MODELS_MAX = 12
"""Rows and columns of the matrix."""


def laid_out(path: Path, log: Recording, figures: Figures, said: Sequence[str], plots: dict[str, Plot]) -> list[Block]:
    """Lay the report out. plots: by the section that they belong to: late, pairs."""
    blocks: list[Block] = [Heading(1, f"Report on {path.name}"), Paragraph(_head(log))]
    if log.notes:
        blocks.append(Bullets(log.notes))
    blocks += [Heading(2, "In short"), Bullets(said)]
    if log.kind == "events":
        blocks += [Heading(2, "Deadlines by model and class"), _deadlines(figures)]
        blocks += [Heading(2, "Why requests were late"), *_late(figures), *_plot(plots, "late")]
    blocks += [Heading(2, "Who slows whom"), *_pairs(figures), *_plot(plots, "pairs")]
    return [*blocks, Heading(2, "Predicted and measured"), *_predicted(log, figures)]


def _plot(plots: dict[str, Plot], name: str) -> Iterator[Block]:
    if name in plots:
        yield plots[name]


def _head(log: Recording) -> str:
    devices = ", ".join(filter(None, log.devices)) or "not named"
    lanes = "" if log.lanes is None else f", {log.lanes} lanes"
    span_s = (log.ends_ns - log.begins_ns) / 1e9
    since = "" if log.kind == "samples" else f" from {clock(log.begins_ns)} to {clock(log.ends_ns)}"
    requests = "" if log.kind == "samples" else f"{sum(c.total() for c in log.outcomes.values()):,} requests, "
    return f"Device {devices}{lanes}; {requests}{len(log.batches):,} batches in {span_s:.1f} s{since}."


def _deadlines(figures: Figures) -> Block:
    header = ("model", "class", "requests", "met", "missed", "rejected", "met %", "no deadline", "failed or open")
    rows = [
        (
            d.model,
            str(d.priority),
            *(f"{n:,}" for n in (d.requests, d.met, d.missed, d.rejected)),
            "–" if d.met_share is None else f"{100 * d.met_share:.1f}",
            f"{d.no_deadline:,}",
            f"{d.open:,}",
        )
        for d in figures.deadlines
    ]
    return TextTable(header, rows)


def _late(figures: Figures) -> Iterator[Block]:
    if not figures.late:
        yield Paragraph("No request was answered late.")
        return
    yield Paragraph(
        "Time of the late requests from arrival to answer, in percent of it; the parts add up to the whole. "
        "An answer counts as of the moment that the scheduler hears of its batch's end."
    )
    rows = [_lateness_row(late) for late in [*figures.late, *([figures.all_late] if len(figures.late) > 1 else [])]]
    yield TextTable(("late requests of", "number", "mean ms", *CAUSES), rows)
    yield Bullets([f"{cause}: {MEANINGS[cause]}" for cause in CAUSES])
    yield Paragraph(
        "Seconds of their time by whose batches it was: waiting counts for those that ran meanwhile, suspension for "
        "the one that went first."
    )
    yield TextTable(("by batches of", *BY_OTHERS, "sum", "of other models' requests"), _by_model(figures))
    rows = _by_whom(figures)
    yield TextTable(("late requests of", "cause", "by", "seconds", "% of their time"), rows[:ROWS_MAX], 3)
    if len(rows) > ROWS_MAX:
        yield Paragraph(f"{len(rows) - ROWS_MAX} smaller ones are left out.")


def _lateness_row(late: Lateness) -> tuple[str, ...]:
    shares = (f"{100 * late.share(cause):.1f}" for cause in CAUSES)
    return (late.model or "all", f"{late.requests:,}", f"{late.total_ns / late.requests / 1e6:.1f}", *shares)


def _by_model(figures: Figures) -> list[tuple[str, ...]]:
    caused = figures.all_late.by_model(*BY_OTHERS)
    by_cause = [figures.all_late.by_model(cause) for cause in BY_OTHERS]
    to_itself = Counter({late.model: late.by_model(*BY_OTHERS)[late.model or ""] for late in figures.late})
    return [
        (by, *(seconds(found[by]) for found in by_cause), seconds(span_ns), seconds(span_ns - to_itself[by]))
        for by, span_ns in caused.most_common(ROWS_MAX)
    ]


def _by_whom(figures: Figures) -> list[tuple[str, ...]]:
    rows = [
        (span_ns, late, cause, by)
        for late in figures.late
        for cause in BY_OTHERS
        for by, span_ns in late.by_model(cause).items()
    ]
    rows.sort(key=lambda row: -row[0])
    return [
        (late.model or "", cause, by, seconds(span_ns), f"{100 * span_ns / max(1, late.total_ns):.1f}")
        for span_ns, late, cause, by in rows
    ]


def _pairs(figures: Figures) -> Iterator[Block]:
    if not figures.pairs:
        yield Paragraph("No batch had a co-runner.")
        return
    yield Paragraph(
        "Device time that batches took beyond their solo latency, by the model of the co-runners that caused it: "
        "seconds in all, and milliseconds per batch of the row's model. Negative: they took less than that."
    )
    shown = shown_models(figures)
    cells = {
        (pair.model, pair.by): f"{seconds(pair.cost_ns)} ({pair.per_batch_ns / 1e6:.2f})" for pair in figures.pairs
    }
    rows = [
        (model, *(cells.get((model, by), "–") for by in shown), seconds(figures.not_explained.get(model, 0)))
        for model in shown
    ]
    yield TextTable(("batches of ↓ slowed by →", *shown, "not explained"), rows)
    if len(shown) < len(figures.models):
        yield Paragraph(f"{len(figures.models) - len(shown)} models that cost and suffer less are left out.")
    header = ("batches of", "slowed by", "seconds", "ms per batch", "% of execution")
    costly = [pair for pair in figures.pairs if pair.cost_ns > 0][:ROWS_MAX]
    pairs = [(p.model, p.by, seconds(p.cost_ns), f"{p.per_batch_ns / 1e6:.2f}", f"{100 * p.share:.1f}") for p in costly]
    yield TextTable(header, pairs, 2)


def shown_models(figures: Figures) -> list[str]:
    """Models of the matrix, those that cost and suffer most."""
    weight: Counter[str] = Counter()
    for pair in figures.pairs:
        for model in (pair.model, pair.by):
            weight[model] += abs(pair.cost_ns)
    return sorted(model for model, _ in weight.most_common(MODELS_MAX))


def _predicted(log: Recording, figures: Figures) -> Iterator[Block]:
    if not figures.predicted:
        yield Paragraph("The log has no predictions.")
        return
    header = ("model", "batches", "alone ms", "measured ms", "error p50 %", "error p95 %", "bound held %")
    rows = [
        (
            p.model,
            f"{p.batches:,}",
            f"{p.solo_ns / 1e6:.2f}",
            f"{p.measured_ns / 1e6:.2f}",
            f"{100 * p.error_p50:.1f}",
            f"{100 * p.error_p95:.1f}",
            "–" if p.held is None else f"{100 * p.held:.1f}",
        )
        for p in figures.predicted
    ]
    yield TextTable(header, rows)
    bound = (
        " Samples do not have the upper bound." if log.kind == "samples" else " The upper bound is to hold for 95 %."
    )
    yield Paragraph(f"Errors are |predicted at launch − measured| / measured execution.{bound}")
