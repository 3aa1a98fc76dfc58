"""Cost of one prediction and of one update beside 16 co-runners, and the size of the state.

`python -m benchmarks.prediction_cost`
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from time import perf_counter_ns
from typing import Annotated

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.harness.machine import machine_speed
from predictor.evaluate import LEARNERS
from predictor.features import exposure
from predictor.learners.isochrone import Isochrone
from predictor.samples import co_runners_of, own_of
from predictor.slowdown_function import sums_of
from tests.fakes.contended_samples import Contention, generate


def _timed(repeats: int, calls: list[Callable[[], object]]) -> tuple[float, float, float]:
    spans = []
    for i in range(repeats):
        call = calls[i % len(calls)]
        began_ns = perf_counter_ns()
        call()
        spans.append(perf_counter_ns() - began_ns)
    p50, p99 = np.percentile(spans, (50, 99)).tolist()
    return p50 / 1e3, float(np.mean(spans)) / 1e3, p99 / 1e3


def main(
    repeats: Annotated[int, typer.Option(help="Calls timed of each.")] = 5_000,
    seed: Annotated[int, typer.Option(help="Of the batches.")] = 0,
) -> None:
    """Print microseconds. Ours learns in blocks, so its mean says more than its p50."""
    before = machine_speed()
    batches = []
    for sample in generate(Contention("mixed", lanes=17, count=1_000, whole=True, seed=seed)):
        co_runners = [sample.co_runners[i % len(sample.co_runners)] for i in range(16)]
        own = own_of(sample)
        batches.append(
            (own, exposure(own, co_runners_of(msgspec.structs.replace(sample, co_runners=tuple(co_runners)))))
        )
    rng = np.random.default_rng(seed)
    table = Table("learner", "predict p50", "mean", "p99", "learn p50", "mean", "p99", "pickled bytes")
    for name, make in LEARNERS.items():
        learner = make()
        for own, seen in batches:
            learner.learn_one(own, seen, float(rng.uniform(1, 4)))
        predict = _timed(repeats, [lambda b=b, at=learner.predict_one: at(*b) for b in batches])  # type: ignore[misc]
        learn = _timed(repeats, [lambda b=b, at=learner.learn_one: at(*b, 2.0) for b in batches])  # type: ignore[misc]
        size = len(pickle.dumps(learner))
        table.add_row(name, *(f"{us:.1f}" for us in (*predict, *learn)), f"{size:,}")
        if isinstance(learner, Isochrone):
            sums = [sums_of(seen, learner.contribution) for _, seen in batches[:200]]
            forms = [learner.slowdown_function(own) for own, _ in batches[:200]]
            fast = _timed(repeats, [lambda f=f, s=s: f.slowdown(s) for f, s in zip(forms, sums, strict=False)])  # type: ignore[misc]
            table.add_row(" its function", *(f"{us:.1f}" for us in fast), "", "", "", "")
    console = Console()
    console.print(table)
    console.print(f"16 neighbours; {before} before, {machine_speed()} after", highlight=False)


if __name__ == "__main__":
    typer.run(main)
