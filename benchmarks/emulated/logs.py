"""Logs of finished batches as the law draws them, and as Gavel measured pairs, for `isochrone evaluate`'s learners.

EMULATED: no GPU takes part. Every batch of a set gives one sample, beside the others of its set for all of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from backend.simulation.gpu_law import GpuLaw, KernelDemand, Regime
from benchmarks.emulated.draws import draw_demand
from benchmarks.emulated.measured import gavel_pairs
from predictor.features import CoRunner, Own
from predictor.samples import Sample, sample_of
from predictor.workload import Load

SIZES = (1, 2, 4, 8, 16)
BLOCK = 30
"""Samples of one set in succession, in blocked order."""
_MS = 1_000_000
_WORK_GROWTH = 0.7
"""w grows with the batch to this power (Orion's kernels)."""

Slowdown = Callable[[Own, Sequence[Own]], float]


@dataclass(frozen=True)
class Population:
    """Batches that may run together, and what they do to each other. noise: standard deviation of log slowdown."""

    owns: Sequence[Own]
    slowdown: Slowdown
    sets: Sequence[Sequence[Own]]
    noise: float


def _drawn(seed: int, law: GpuLaw, noise: float, *, models: int = 10, sets: int = 400) -> Population:
    """Sets of two to four of `models` models, each at five sizes, whose features tell little of u and nothing of w."""
    stream = np.random.default_rng(seed)
    demands: dict[Own, KernelDemand] = {}
    for index in range(models):
        name = f"m{index}"
        drawn = draw_demand(stream, name)
        alone_ms, steep = float(np.exp(stream.uniform(log(2.0), log(12.0)))), float(stream.uniform(0.1, 0.5))
        l2, dram = stream.uniform(0.1, 0.9, 2).tolist()
        for size in SIZES:
            busy = drawn.busy_share + (1.0 - drawn.busy_share) * 0.5 * log(size) / log(SIZES[-1])
            work = drawn.work_per_kernel * (size / 4) ** _WORK_GROWTH
            seen = busy * float(stream.uniform(0.6, 1.0))
            own = Own(
                name, size, Load(round(alone_ms * (1 - steep + steep * size) * _MS), seen, busy * l2, busy * dram)
            )
            demands[own] = KernelDemand(name, size, busy, work)
    owns = list(demands)

    def slowdown(own: Own, others: Sequence[Own]) -> float:
        return law.slowdown(demands[own], [demands[other] for other in others])

    chosen = [[owns[i] for i in stream.integers(len(owns), size=stream.integers(2, 5))] for _ in range(sets)]
    return Population(owns, slowdown, chosen, noise)


def _gavel(seed: int, gpu: str, noise: float) -> Population:
    """Pairs of training jobs at the sizes that Gavel measured them at; it has no features of them."""
    jobs, pairs = gavel_pairs(gpu)
    owns = [Own(*_model_and_size(job), Load(10 * _MS, 0.0, 0.0, 0.0)) for job in jobs]
    measured = {(owns[p.own], owns[p.other]): p.slowdown for p in pairs}
    return Population(
        owns,
        lambda own, others: measured[own, others[0]],
        [[owns[p.own], owns[p.other]] for p in pairs if p.own <= p.other],
        noise,
    )


def _model_and_size(job: str) -> tuple[str, int]:
    model, _, size = job.partition(" (batch size ")
    return model, int(size.rstrip(")")) if size else 1


KINDS: dict[str, Callable[[int], Population]] = {
    "sets": lambda seed: _drawn(seed, GpuLaw(seed), 0.03),
    "sets, few seen": lambda seed: _drawn(seed, GpuLaw(seed), 0.03, models=14, sets=4000),
    "sets, no saturation": lambda seed: _drawn(seed, GpuLaw(seed, saturation=1.0), 0.03),
    "gavel v100": lambda seed: _gavel(seed, "v100", 0.01),
    "gavel p100": lambda seed: _gavel(seed, "p100", 0.01),
    "gavel k80": lambda seed: _gavel(seed, "k80", 0.01),
    "mild": lambda seed: _drawn(seed, GpuLaw(seed, pair_sd=0.02, regime=Regime.PARTITIONS), 0.01, models=6, sets=100),
    "mild, noisy": lambda seed: _drawn(
        seed, GpuLaw(seed, pair_sd=0.02, regime=Regime.PARTITIONS), 0.035, models=6, sets=100
    ),
}


def log_of(kind: str, seed: int, samples: int = 2000, *, blocked: bool = False) -> list[Sample]:
    """A log in the order of its start; each set's samples spread at random, or blocked."""
    population = KINDS[kind](seed)
    stream = np.random.default_rng((seed, 1))
    found = list[Sample]()
    while len(found) < samples:
        chosen = population.sets[stream.integers(len(population.sets))]
        for _ in range(BLOCK if blocked else 1):
            at = int(stream.integers(len(chosen)))
            own, others = chosen[at], [other for i, other in enumerate(chosen) if i != at]
            slowdown = population.slowdown(own, others) * float(np.exp(population.noise * stream.standard_normal()))
            co_runners = [CoRunner(o.model, o.batch_size, o.load) for o in others]
            start_ns = len(found) * 1000 * _MS
            found.append(sample_of(own, co_runners, "1", "emulated", start_ns, round(own.load.solo_ns * slowdown)))
    return found[:samples]
