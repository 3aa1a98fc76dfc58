"""`python -m benchmarks.fleet`: takes the seeds that are missing and writes the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backend.progress_bar import StageBar
from benchmarks.fleet.fleet_report import FleetReport
from benchmarks.fleet.plan import FULL, QUICK
from benchmarks.fleet.records import FleetRecords
from benchmarks.harness.command import record_and_report
from benchmarks.harness.parts import PartCollector


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Seconds: shows that it works, not what it finds.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="Fewer seeds than the plan has: a first look.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Remove earlier records and record anew.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")] = None,
    folder: Annotated[Path, typer.Option(help="Of the records, which a later run takes up.")] = Path("results/fleet"),
    out: Annotated[Path, typer.Option(help="The report.")] = Path("docs/reports/fleet.md"),
) -> None:
    """EMULATED: no GPU takes part. Routers over the same emulated fleets, in virtual time."""
    records = FleetRecords((QUICK if quick else FULL).with_seeds(seeds), folder)

    def write(_: StageBar) -> Path:
        out.write_text(FleetReport(records).text())
        return out

    record_and_report("bench-fleet", records, lambda _: PartCollector(records, workers, 1), write, again=again)


if __name__ == "__main__":
    typer.run(main)
