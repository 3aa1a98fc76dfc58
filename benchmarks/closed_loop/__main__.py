"""`python -m benchmarks.closed_loop`: takes the turns that are missing, writes the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from backend.progress_bar import StageBar
from benchmarks.closed_loop.closed_loop_report import report
from benchmarks.closed_loop.collect import ClosedLoopCollector
from benchmarks.closed_loop.plan import FULL, QUICK
from benchmarks.closed_loop.records import ClosedLoopRecords
from benchmarks.harness.command import known, one_sentence_errors, record_and_report


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Shows that it works, not what it finds.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Remove earlier records and record anew.")] = False,
    servers: Annotated[str | None, typer.Option(help="Some of them, with semicolons between: a first look.")] = None,
    repository: Annotated[Path, typer.Option(help="Where `make models` put the models.")] = Path("model_repository"),
    folder: Annotated[Path, typer.Option(help="Of the records, which a later run takes up.")] = Path(
        "results/closed-loop"
    ),
    out: Annotated[Path, typer.Option(help="The report.")] = Path("docs/reports/closed-loop.md"),
) -> None:
    """A high class's latency next to a closed loop of a low one, on real servers."""
    plan = QUICK if quick else FULL
    if servers is not None:
        with one_sentence_errors("bench-closed-loop"):
            plan = msgspec.structs.replace(plan, servers=tuple(known("--servers", servers.split(";"), FULL.servers)))
    records = ClosedLoopRecords(plan, folder)

    def write(_: StageBar) -> Path:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(report(plan, records.manifest, records.profiles(), records.recorded()))
        return out

    record_and_report(
        "bench-closed-loop",
        records,
        lambda bar: ClosedLoopCollector(records, repository, bar),
        write,
        again=again,
    )


if __name__ == "__main__":
    typer.run(main)
