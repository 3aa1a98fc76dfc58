"""Cost of this backend beside a blocking Python backend that runs the same ONNX model on the same lanes.

`--least`: what the minimal backend costs that answers asynchronously.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backend.linux.cpu_topology import cores
from benchmarks.harness.command import one_sentence_errors
from benchmarks.harness.model_pairs import PairsPlan, compare
from benchmarks.models.blocking_backend import write_stock
from benchmarks.models.model_repository import MAX_BATCH_SIZE, write_config

OURS, STOCK, _LEAST = "isochrone", "blocking", "minimal_async"


def main(
    repeats: Annotated[int, typer.Option(help="pairs per row of the table")] = 7,
    seconds: Annotated[float, typer.Option(help="length of one measurement")] = 3.0,
    least: Annotated[bool, typer.Option("--least", help="instead of ours, the least that answers late")] = False,
) -> None:
    """Compare latency at concurrency 1 and throughput at 8 and 32 for a 2 ms and a 15 ms model."""
    plan = PairsPlan((_LEAST if least else OURS, STOCK), (2.0, 15.0), (1, 8, 32), repeats, seconds)
    with one_sentence_errors("bench-overhead", kept="what was measured is above"):
        compare(plan, configure)


def configure(kind: str, folder: Path) -> None:
    if kind == OURS:
        write_config(folder, {})
    else:
        least = kind == _LEAST
        write_stock(folder, MAX_BATCH_SIZE, 1 if least else len(cores()), minimal_async=least)


if __name__ == "__main__":
    typer.run(main)
