"""`python -m benchmarks.study`: records what is missing, computes, draws, writes the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backend.progress_bar import StageBar
from benchmarks.harness.command import record_and_report
from benchmarks.study.collect import StudyCollector
from benchmarks.study.plan import plan
from benchmarks.study.plots import draw
from benchmarks.study.records import StudyRecords
from benchmarks.study.results import results
from benchmarks.study.study_report import report

_COMPUTING_S = 90.0


def study(
    quick: Annotated[bool, typer.Option("--quick", help="Minutes: shows that it works, not what it finds.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Remove earlier records and record anew.")] = False,
    repository: Annotated[Path, typer.Option(help="Where `make models` put the models.")] = Path("model_repository"),
    folder: Annotated[Path, typer.Option(help="Of the records, which a later run takes up.")] = Path("results/study"),
    out: Annotated[Path, typer.Option(help="The report; plots go to a folder beside it.")] = Path(
        "docs/reports/study.md"
    ),
) -> None:
    """The paper's protocol on a stock tritonserver with this backend, and ours beside it."""
    records = StudyRecords(plan(quick=quick), repository, folder)

    def write(bar: StageBar) -> Path:
        found = results(records, bar.begin)
        bar.begin("drawing", 5.0)
        out.write_text(report(found, draw(found, out.with_suffix("")), out.parent))
        return out

    def collector(bar: StageBar) -> StudyCollector:
        return StudyCollector(records, bar)

    record_and_report("study", records, collector, write, again=again, computing_s=_COMPUTING_S)


if __name__ == "__main__":
    typer.run(study)
