"""`python -m benchmarks.compare`: takes the turns that are missing, draws, writes the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from backend.load.plots import draw
from backend.progress_bar import StageBar, console
from backend.simulation.contention import learned
from benchmarks.compare.bench_report import Found, report
from benchmarks.compare.collect import ComparisonCollector
from benchmarks.compare.plan import FULL, QUICK
from benchmarks.compare.records import ComparisonRecords
from benchmarks.harness.command import record_and_report

_NEEDS_SAMPLES = "isochrone, gpulets"


def compare(
    quick: Annotated[bool, typer.Option("--quick", help="Minutes: shows that it works, not what it finds.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Remove earlier records and record anew.")] = False,
    repository: Annotated[Path, typer.Option(help="Where `make models` put the models.")] = Path("model_repository"),
    samples: Annotated[
        Path, typer.Option(help="For the model that is fitted once: recorded by `make study`; left out without.")
    ] = Path("results/study/logs/training-set-2-lanes.jsonl"),
    folder: Annotated[Path, typer.Option(help="Of the records, which a later run takes up.")] = Path("results/bench"),
    out: Annotated[Path, typer.Option(help="The report; plots go to a folder beside it.")] = Path(
        "docs/reports/bench.md"
    ),
) -> None:
    """Stock Triton in several settings, other schedulers and this one, on the same requests."""
    plan = QUICK if quick else FULL
    recorded = samples if samples.is_file() else None
    if recorded is None and _NEEDS_SAMPLES in plan.servers:
        console().print(f"no '{samples}', so '{_NEEDS_SAMPLES}' is left out; `make study` records it", highlight=False)
        plan = msgspec.structs.replace(plan, servers=tuple(s for s in plan.servers if s != _NEEDS_SAMPLES))
    records = ComparisonRecords(plan, folder)

    def collector(bar: StageBar) -> ComparisonCollector:
        return ComparisonCollector(records, repository, recorded, bar)

    record_and_report("bench", records, collector, lambda _: _write(records, out), again=again)


def _write(records: ComparisonRecords, out: Path) -> Path:
    plan, recorded = records.plan, records.recorded()
    plots = {}
    for arrivals in plan.arrivals:
        found = Found(plan, arrivals, recorded)
        folder = out.with_suffix("") / arrivals
        folder.mkdir(parents=True, exist_ok=True)
        plots[arrivals] = draw(found.points, found.measured, found.servers, folder)
    samples = records.samples()
    truth = learned(samples) if samples else None
    out.write_text(report(plan, records.manifest, records.profiles(), recorded, truth, plots, out.parent))
    return out


if __name__ == "__main__":
    typer.run(compare)
