"""Cost of the way to an engine process: the same model with its engine there and in the model's own process."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmarks.harness.command import one_sentence_errors
from benchmarks.harness.model_pairs import PairsPlan, compare
from benchmarks.models.model_repository import write_config


def main(
    repeats: Annotated[int, typer.Option(help="pairs per row of the table")] = 7,
    seconds: Annotated[float, typer.Option(help="length of one measurement")] = 3.0,
    solo_ms: Annotated[list[float] | None, typer.Option(help="solo latency of a model; may be repeated")] = None,
    concurrency: Annotated[list[int] | None, typer.Option(help="requests in flight; may be repeated")] = None,
) -> None:
    """Compare latency and throughput of engines in an engine process and in their model's own, on CPU."""
    plan = PairsPlan(("shared", "own"), solo_ms or (2.0, 15.0), concurrency or (1, 8, 32), repeats, seconds)
    with one_sentence_errors("bench-engine-process", kept="what was measured is above"):
        compare(plan, lambda kind, folder: write_config(folder, {"engine_process": kind}))


if __name__ == "__main__":
    typer.run(main)
