"""`python -m benchmarks.soak`: runs a soak and says what it broke."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from benchmarks.harness.command import interrupt_on_term, one_sentence_errors
from benchmarks.soak.plan import SHORT, plan_of
from benchmarks.soak.soak import Soak, SoakResult
from benchmarks.soak.soak_report import REPORT, write_report

BROKEN = 1
_READINGS = "readings.jsonl"


def main(
    minutes: Annotated[
        float, typer.Option(min=1.0, help="Length, the warm-up of at most ten minutes included.")
    ] = 60.0,
    short: Annotated[bool, typer.Option("--short", help="Seconds: shows that it works.")] = False,
    folder: Annotated[Path, typer.Option(help="Of the report, the readings and the server's log.")] = Path(
        "results/soak"
    ),
) -> None:
    """Load a real server in every way for an hour; exit code 1 where a bound is broken."""
    interrupt_on_term()
    folder.mkdir(parents=True, exist_ok=True)

    def tell(result: SoakResult) -> None:
        write_report(result, folder, finished=False)
        print(_line(result), flush=True)

    with one_sentence_errors("soak", kept=f"what was found so far is in '{folder}'"):
        plan = SHORT if short else plan_of(minutes)
        result = Soak(plan, folder, tell, tell_every_s=60.0).run()
        (folder / _READINGS).write_bytes(b"".join(msgspec.json.encode(r) + b"\n" for r in result.readings))
        write_report(result, folder, finished=True)
    print(_line(result))
    print(f"{folder / REPORT} is written")
    for sentence in result.wrong:
        print(f"soak: {sentence}")
    if result.wrong:
        raise typer.Exit(BROKEN)


def _line(result: SoakResult) -> str:
    """One line on how it stands: minutes, requests, and the slopes that are known."""
    requests = sum(sum(found.clients.values()) for found in result.accounts)
    slopes = [f"{growth.role} {growth.percent:+.2f}" for growth in result.growths if growth.judged]
    known = f"; slopes, % per ten minutes: {', '.join(slopes)}" if slopes else ""
    return f"{result.seconds / 60:5.1f} minutes, {requests:,} requests, {result.loads} reloads{known}"


if __name__ == "__main__":
    typer.run(main)
