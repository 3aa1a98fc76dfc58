"""`python -m benchmarks.gpu_check`: does what is missing, part by part, while there is time."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.progress_bar import StageBar, console
from benchmarks.gpu_check import agreement, build, profiles, through_server
from benchmarks.gpu_check.colocate import ColocatedRuns
from benchmarks.gpu_check.gpu_report import report
from benchmarks.gpu_check.plan import FULL, QUICK
from benchmarks.gpu_check.records import CheckRecords
from benchmarks.gpu_check.target import the_cpu, the_gpu
from benchmarks.harness.command import interrupt_on_term, known, one_sentence_errors
from benchmarks.harness.steps import Step, TimeBudget, TimeIsOver, perform

if TYPE_CHECKING:
    from benchmarks.study.results import Results

PARTS = ("build", "check", "profile", "colocate", "report")
OFF, NOT_ALL = 1, 3
_BATCH_S, _REPORT_S = 0.015, 5.0
"""Duration of the report, per recorded batch of the study's logs, and of the rest."""


def gpu_check(
    part: Annotated[list[str] | None, typer.Option(help=f"Only this one of {', '.join(PARTS)}; repeatable.")] = None,
    device: Annotated[str, typer.Option(help="gpu; or cpu, to see that everything runs.")] = "gpu",
    minutes: Annotated[float, typer.Option(min=0.0, help="No step begins that would end later.")] = 9.0,
    quick: Annotated[bool, typer.Option("--quick", help="Shows that it works, not what it finds.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Remove earlier records and record anew.")] = False,
    repository: Annotated[Path | None, typer.Option(help="Of models of the same names, in place of the zoo's.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Of the records; default: results/gpu-check/DEVICE.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The report; default: docs/reports/gpu.md; on CPU in FOLDER.")
    ] = None,
) -> None:
    """Build, check, profile and co-locate the six models on a GPU, and write a report.

    Exit code 0: all done; 1: done, and outputs differ; 2: it cannot be done; 3: the time is over before all was done.
    """
    interrupt_on_term()
    folder = folder or Path("results/gpu-check") / device
    with one_sentence_errors("gpu-check"):
        wanted = known("--part", part or PARTS, PARTS)
        known("--device", [device], ("gpu", "cpu"))
        target = the_gpu() if device == "gpu" else the_cpu()
        records = CheckRecords(QUICK if quick else FULL, target, folder, repository)
        records.begin(again=again)
        out = out or (Path("docs/reports/gpu.md") if device == "gpu" else folder / "report.md")
        try:
            run(records, wanted, TimeBudget(60.0 * minutes), out)
        except TimeIsOver as over:
            print(f"gpu-check: {over}", file=sys.stderr)
            raise typer.Exit(NOT_ALL) from None
    if "check" in wanted and not all(agreement.agrees(a) for found in records.agreements().values() for a in found):
        print(f"gpu-check: some outputs differ by more than {agreement.BOUND:g}, see the report", file=sys.stderr)
        raise typer.Exit(OFF)


def run(records: CheckRecords, wanted: Iterable[str], budget: TimeBudget, out: Path) -> None:
    """Raises TimeIsOver, or another IsochroneError; what is recorded by then is kept."""
    screen = console()

    def say(sentence: str) -> None:
        screen.print(sentence, highlight=False)

    with StageBar(screen, budget.left_s) as bar:
        for part in PARTS:
            if part not in wanted:
                continue
            if part not in ("build", "report"):
                build.need_models(records)
            match part:
                case "build":
                    perform(build.steps(records, budget), bar, budget)
                case "check":
                    perform(agreement.steps(records), bar, budget)
                case "profile":
                    perform(profiles.steps(records, say), bar, budget)
                case "colocate":
                    profiles.need_all(records)
                    with ColocatedRuns(records, bar) as colocation:
                        perform(colocation.steps(), bar, budget)
                    if (why := through_server.missing()) is None:
                        perform(through_server.steps(records, bar), bar, budget)
                    else:
                        records.keep_server_skipped(why)
                case "report":
                    step = Step("the report", _report_s(records), lambda: _write(records, bar, out))
                    perform([step], bar, budget)
    say(f"{out} is written" if "report" in wanted else "done")


def _write(records: CheckRecords, bar: StageBar, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report(records, _study(records, bar)), encoding="utf-8")


def _study(records: CheckRecords, bar: StageBar) -> Results | str:
    """Results of the logs, or why there are none."""
    if not records.study_is_complete():
        return "some of its four logs are missing, or no engine took their models"
    try:
        from benchmarks.study.results import results  # noqa: PLC0415 - needs scikit-learn, an extra
    except ModuleNotFoundError as error:
        return f"the module {error.name} is missing, pip install 'isochrone[bench]'"
    return results(records.study, bar.begin)


def _report_s(records: CheckRecords) -> float:
    batches = sum(run.requests for run in records.study_runs()) if records.study_is_complete() else 0
    return _REPORT_S + _BATCH_S * batches


if __name__ == "__main__":
    typer.run(gpu_check)
