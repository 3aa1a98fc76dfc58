"""`python -m benchmarks.study`: record what is missing, compute, draw, write the report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from backend.commands.progress_bar import StageBar, console
from benchmarks.harness.command import interrupt_on_term, one_sentence_errors
from benchmarks.study.collect import Collector, missing_s
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
    out: Annotated[Path, typer.Option(help="Folder of study.md; plots go to its folder study/.")] = Path("docs"),
) -> None:
    """The paper's protocol on a stock tritonserver with this backend, and ours beside it."""
    interrupt_on_term()
    screen = console()
    if again:
        shutil.rmtree(folder, ignore_errors=True)
    with one_sentence_errors("study"):
        records = StudyRecords(plan(quick=quick), repository, folder)
        records.begin()
        seconds = missing_s(records)
        screen.print(f"about {seconds / 60 + _COMPUTING_S / 60:.0f} minutes; interrupted, it goes on where it was")
        with StageBar(screen, seconds + _COMPUTING_S) as stages:
            Collector(records, stages.begin, stages.advance).run()
            found = results(records, stages.begin)
            stages.begin("drawing", 5.0)
            out.mkdir(parents=True, exist_ok=True)
            plots = draw(found, out / "study")
            (out / "study.md").write_text(report(found, plots, out))
    screen.print(f"{out / 'study.md'} is written", highlight=False)


if __name__ == "__main__":
    typer.run(study)
