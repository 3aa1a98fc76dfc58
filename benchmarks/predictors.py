"""Every learner on contention with known truth, and on A100 measurements where they are given: ratios to RLS.

`python -m benchmarks.predictors [--a100 FOLDER] [--law NAME]`
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.contention import LAWS, Workload, a100_samples, generate
from predictor.evaluate import Evaluation, evaluate
from predictor.samples import Sample
from predictor.workload import FEATURES


def scenarios(laws: list[str], count: int, seed: int) -> Iterator[tuple[str, list[Sample]]]:
    for law in laws:
        for lanes in (2, 5):
            for name, whole, blocks in (
                ("pairs" if lanes == 2 else "sets", True, False),
                ("served", False, False),
                ("served in blocks", False, True),
            ):
                workload = Workload(law, lanes=lanes, count=count, whole=whole, blocks=blocks, seed=seed)
                yield f"{law}, {lanes - 1} beside, {name}", generate(workload)


def main(
    count: Annotated[int, typer.Option(help="Batches per scenario.")] = 2_000,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    law: Annotated[list[str] | None, typer.Option(help=f"Only these of {', '.join(LAWS)}.")] = None,
    a100: Annotated[Path | None, typer.Option(help="Folder of ParvaGPU's CSV files.")] = None,
) -> None:
    """Print the error of ours after 500 batches beside that of RLS and of the best other."""
    table = Table("scenario", "ours %", "RLS %", "ours / RLS", "ours / best other", "coverage", "inflation")
    for name, samples in scenarios(law or list(LAWS), count, seed):
        table.add_row(name, *_row(evaluate(samples, FEATURES)))
    if a100 is not None:
        table.add_row("A100, identical processes", *_row(evaluate(a100_samples(a100), ("compute",))))
    Console().print(table)


def _row(evaluation: Evaluation) -> list[str]:
    errors = {name: score.mape_after_500 or score.mape for name, score in evaluation.learners.items()}
    ours, rls = errors.pop("isochrone"), errors["rls"]
    best = min(errors, key=lambda name: errors[name])
    score = evaluation.learners["isochrone"]
    return [
        f"{100 * ours:.2f}",
        f"{100 * rls:.2f}",
        f"{ours / rls:.2f}",
        f"{ours / errors[best]:.2f} ({best})",
        f"{score.coverage:.3f}",
        f"{score.inflation:.3f}",
    ]


if __name__ == "__main__":
    typer.run(main)
