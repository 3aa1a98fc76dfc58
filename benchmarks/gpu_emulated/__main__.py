"""`python -m benchmarks.gpu_emulated`: takes the draws that are missing, draws plots, writes the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backend.progress_bar import StageBar
from benchmarks.gpu_emulated.collect import GpuCollector
from benchmarks.gpu_emulated.gpu_emulated_report import GpuReport
from benchmarks.gpu_emulated.plan import FULL, QUICK
from benchmarks.gpu_emulated.plots import draw
from benchmarks.gpu_emulated.records import GpuRecords
from benchmarks.harness.command import record_and_report


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Seconds: shows that it works, not what it finds.")] = False,
    draws: Annotated[int | None, typer.Option(min=1, help="Fewer draws than the plan has: a first look.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Remove earlier records and record anew.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")] = None,
    folder: Annotated[Path, typer.Option(help="Of the records, which a later run takes up.")] = Path(
        "results/gpu-emulated"
    ),
    out: Annotated[Path, typer.Option(help="The report; plots go to a folder beside it.")] = Path(
        "docs/reports/gpu-emulated.md"
    ),
) -> None:
    """EMULATED: no GPU takes part. Rivals on draws of an emulated A100, in virtual time, and one draw on servers."""
    plan = (QUICK if quick else FULL).with_draws(draws)
    records = GpuRecords(plan, folder)

    def write(_: StageBar) -> Path:
        report = GpuReport(records)
        plots = draw(plan, report.runs, report.best, report.references, out.with_suffix(""))
        out.write_text(report.text(plots, out.parent))
        return out

    record_and_report("bench-gpu", records, lambda bar: GpuCollector(records, workers, bar), write, again=again)


if __name__ == "__main__":
    typer.run(main)
