"""Output of `isochrone profile`: a bar with the time left, a line per entry, the table, the JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from backend.profiling.job import Job
from backend.progress_bar import ProgressBar
from profiler.profile_file import ProfileEntry

SCHEMA = 1


class Bar(ProgressBar):
    """A bar on a terminal, plain lines elsewhere. It draws when told to, never from a thread beside the timing."""

    def __init__(self, out: Console) -> None:
        drawn = Progress(
            TextColumn("profiling"),
            BarColumn(30),
            TextColumn("{task.percentage:3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("left {task.description}"),
            console=out,
            auto_refresh=False,
            transient=True,
            disable=not out.is_terminal,
        )
        super().__init__(out, drawn, 1.0)

    def entry(self, job: Job, batch_size: int) -> None:
        """One batch size of a model is done."""
        assert job.file is not None
        (entry,) = (one for one in job.file.entries if one.batch_size == batch_size)
        self._tell(f"{job.name} batch {batch_size}: p50 {_ms(entry.p50_ns)} ms, p95 {_ms(entry.p95_ns)} ms")

    def advance(self, share: float) -> None:
        """Show that this share of all work is done."""
        self._progress.update(self._task, completed=share, refresh=True)

    def say(self, sentence: str) -> None:
        """Print a sentence on a line of its own."""
        self._out.print(sentence, highlight=False, soft_wrap=True, markup=False)


def table(jobs: Sequence[Job]) -> Table:
    """Every batch size that was asked for and is known."""
    made = Table(
        "model", "batch", "p50 ms", "± %", "p95 ms", "p95 from-to ms", "rows/s", "compute", "l2", "dram", "runs"
    )
    for job in jobs:
        for entry in job.file.entries if job.file else ():
            if entry.batch_size in job.batch_sizes:
                made.add_row(*_row(job, entry))
    return made


def _row(job: Job, entry: ProfileEntry) -> tuple[str, ...]:
    low, high = entry.p50_interval_ns
    shares = entry.features
    return (
        job.name,
        str(entry.batch_size),
        _ms(entry.p50_ns),
        f"{50 * (high - low) / entry.p50_ns:.1f}",
        _ms(entry.p95_ns),
        "-".join(map(_ms, entry.p95_interval_ns)),
        f"{entry.rows_per_s:.1f}",
        *(f"{share:.2f}" for share in (shares.compute, shares.l2, shares.dram)),
        f"{entry.runs}" if entry.batch_size in job.measured else f"{entry.runs} (kept)",
    )


def as_json(jobs: Sequence[Job], failed: Mapping[str, str], *, wall_s: float, interrupted: bool) -> bytes:
    """All profiles and errors of one run of the command."""
    models = [
        {
            "model": job.config.name,
            "version": job.config.version,
            "path": str(job.path),
            "measured": sorted(job.measured),
            "profile": job.file,
            "error": job.error,
        }
        for job in jobs
    ]
    models += [{"model": name, "profile": None, "error": error} for name, error in failed.items()]
    answer = {"schema": SCHEMA, "wall_s": round(wall_s, 1), "interrupted": interrupted, "models": models}
    return msgspec.json.format(msgspec.json.encode(answer), indent=1) + b"\n"


def features_sentence(jobs: Sequence[Job]) -> str:
    """One sentence with the features' sources."""
    where = {
        "nsight": "the GPU's own counters, read by Nsight Compute",
        "graph": "operations and bytes counted in the model graph, over the measured peaks of one core",
        "estimate": "operations and bytes counted in the model graph, over peaks that follow from the GPU's attributes",
        "neutral": "nothing measured: neutral values",
    }
    names = dict.fromkeys(job.file.features_from for job in jobs if job.file)
    return "features from: " + "; ".join(f"{name} ({where.get(name, name)})" for name in names)


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.2f}"
