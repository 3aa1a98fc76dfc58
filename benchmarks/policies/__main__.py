"""`python -m benchmarks.policies`: run the rivals, print the report, write it where asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.progress import track

from backend.commands.progress_bar import console
from benchmarks.harness.errors import BenchmarkError
from benchmarks.policies.policies_report import report
from benchmarks.policies.runs import LOADS, read_device, run
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
    """What share of deadlines each keeps at each load."""
    names = rival or list(RIVALS)
    if unknown := [name for name in names if name not in RIVALS]:
        raise SystemExit(f"--rival {unknown[0]} is not one of {', '.join(RIVALS)}")
    try:
        device = read_device(records, lanes)
    except BenchmarkError as error:
        raise SystemExit(str(error)) from None
    screen, rows = console(_WIDTH), []
    for at in track(load or LOADS, "loads", transient=True, console=screen):
        plans = [device.plan(at, seconds, seed) for seed in range(seeds)]
        rows += [run(name, device, at, plans, seconds) for name in names]
    text = report(device, rows, starve(device, starvation) if starvation > 0.0 else [], seconds, seeds)
    if out is not None:
        out.write_text(text)
    screen.print(Markdown(text))


if __name__ == "__main__":
    typer.run(main)
