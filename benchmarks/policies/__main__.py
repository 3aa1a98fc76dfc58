"""`python -m benchmarks.policies`: runs the rivals, prints the report, writes it where asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.progress import track

from backend.progress_bar import console
from benchmarks.harness.command import known, one_sentence_errors
from benchmarks.harness.loads import LOADS
from benchmarks.policies.policies_report import report
from benchmarks.policies.runs import read_device, run
from benchmarks.policies.starvation import starve
from benchmarks.rivals import RIVALS

_WIDTH = 160


def main(
    records: Annotated[Path, typer.Option(help="What `make study` or `make bench` recorded.")] = Path("results/study"),
    lanes: Annotated[int, typer.Option(help="As many as one of its logs has, which tells the interference.")] = 2,
    load: Annotated[list[float] | None, typer.Option(help="1: every lane is busy with batches of one, alone.")] = None,
    rival: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(RIVALS)}.")] = None,
    seconds: Annotated[float, typer.Option(help="Of virtual time, per seed.")] = 30.0,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    starvation: Annotated[float, typer.Option(help="Seconds of virtual time for it; 0: leave it out.")] = 600.0,
    out: Annotated[Path | None, typer.Option(help="Write the report to this file too.")] = None,
) -> None:
    """Compare what share of deadlines each keeps at each load."""
    with one_sentence_errors("bench-policies", kept="nothing is written"):
        names = known("--rival", rival or RIVALS, RIVALS)
        device = read_device(records, lanes)
    screen, rows = console(_WIDTH), []
    for at in track(load or LOADS, "loads", transient=True, console=screen):
        plans = [device.plan(at, seconds, seed) for seed in range(seeds)]
        rows += [run(name, device, at, plans, seconds) for name in names]
    text = report(device, rows, starve(device, starvation) if starvation > 0.0 else [], seconds, seeds)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    screen.print(Markdown(text))


if __name__ == "__main__":
    typer.run(main)
