"""`python -m benchmarks.compare`: take the turns that are missing, draw, write the report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from backend.commands.progress_bar import StageBar, console
from backend.load.plots import draw
from backend.simulation.contention import learned
from benchmarks.compare.bench_report import Found, report
from benchmarks.compare.collect import Collector, remaining_s
from benchmarks.compare.plan import FULL, QUICK
from benchmarks.compare.records import ComparisonRecords
from benchmarks.compare.servers import REFUSED
from benchmarks.harness.command import interrupt_on_term, one_sentence_errors

_NEEDS_SAMPLES = "ours, gpulets"


def compare(
    quick: Annotated[bool, typer.Option("--quick", help="Minutes: shows that it works, not what it finds.")] = False,
    arrivals: Annotated[str, typer.Option(help="poisson, trace, or both with a comma between.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Remove earlier records and record anew.")] = False,
    repository: Annotated[Path, typer.Option(help="Where `make models` put the models.")] = Path("model_repository"),
    samples: Annotated[
        Path, typer.Option(help="For the model that is fitted once: recorded by `make study`; left out without.")
    ] = Path("results/study/logs/training-set-2-lanes.jsonl"),
    folder: Annotated[Path, typer.Option(help="Of the records, which a later run takes up.")] = Path("results/bench"),
    out: Annotated[Path, typer.Option(help="Folder of bench.md; plots go to its folder bench/.")] = Path("docs"),
) -> None:
    """Stock Triton in several settings, other schedulers and this one, on the same requests."""
    interrupt_on_term()
    screen = console()
    if again:
        shutil.rmtree(folder, ignore_errors=True)
    plan = QUICK if quick else FULL
    if arrivals:
        plan = msgspec.structs.replace(plan, arrivals=_known(arrivals.split(",")))
    recorded = samples if samples.is_file() else None
    if recorded is None and _NEEDS_SAMPLES in plan.servers:
        screen.print(f"no '{samples}', so '{_NEEDS_SAMPLES}' is left out; `make study` records it", highlight=False)
        plan = msgspec.structs.replace(plan, servers=tuple(s for s in plan.servers if s != _NEEDS_SAMPLES))
    with one_sentence_errors("bench"):
        records = ComparisonRecords(plan, folder)
        records.begin()
        seconds = remaining_s(records)
        screen.print(f"about {seconds / 60:.0f} minutes; interrupted, it goes on where it was")
        with StageBar(screen, seconds) as stages:
            Collector(records, repository, recorded, stages.begin, stages.advance).run()
        _write(records, out)
    screen.print(f"{out / 'bench.md'} is written", highlight=False)


def _known(arrivals: list[str]) -> tuple[str, ...]:
    if unknown := [kind for kind in arrivals if kind not in FULL.arrivals]:
        raise SystemExit(f"--arrivals must be of {', '.join(FULL.arrivals)}, got '{unknown[0]}'")
    return tuple(arrivals)


def _write(records: ComparisonRecords, out: Path) -> None:
    plan, recorded = records.plan, records.recorded()
    plots = {}
    for arrivals in plan.arrivals:
        found = Found(plan, arrivals, recorded)
        folder = out / "bench" / arrivals
        folder.mkdir(parents=True, exist_ok=True)
        drawn = [server for server in found.servers if server != REFUSED]
        plots[arrivals] = draw(found.points, found.measured, drawn, folder)
    samples = records.samples()
    truth = learned(samples) if samples else None
    (out / "bench.md").write_text(report(plan, records.machine, records.profiles(), recorded, truth, plots, out))


if __name__ == "__main__":
    typer.run(compare)
