"""Logs of finished batches as the law draws them, and of the pairs that Gavel measured, to hold learners against.

EMULATED: no GPU takes part. Each sample is of one batch of a set, beside the others of its set for all of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from backend.simulation.gpu_law import KERNEL_US, GpuLaw, KernelDemand
from benchmarks.emulated.draws import draw_demand
from benchmarks.emulated.measured import gavel_pairs
from predictor.features import CoRunner, Own
from predictor.samples import Sample, sample_of
from predictor.workload import Load

SIZES = (1, 2, 4, 8, 16)
SET_SIZES = (2, 3, 4)
BLOCK = 30
"""Samples of one set in succession, in blocked order."""
_MS = 1_000_000
_WORK_GROWTH = 0.7
"""w grows with the batch to this power (kernels of Orion's models)."""
_TOLD_SD = 0.3
"""Standard deviation of the logarithm of what a profiler tells of a model's work per kernel over what it is. Made up: a
profiler runs each kernel by itself, with empty caches."""
_HIDDEN_SD = 0.02
"""Of the factor per ordered pair where each has multiprocessors of its own."""


@dataclass(frozen=True)
class Population:
    """Sets of batches that run together, and what they do to each other. noise: standard deviation of log slowdown."""

    sets: Sequence[Sequence[Own]]
    slowdown: Callable[[Own, Sequence[Own]], float]
    noise: float

    def log(self, samples: int, seed: int, *, blocked: bool) -> list[Sample]:
        """Samples by their start, each of a set drawn at random, or `BLOCK` of each set in succession."""
        stream = np.random.default_rng(seed)
        found = list[Sample]()
        while len(found) < samples:
            chosen = self.sets[stream.integers(len(self.sets))]
            for _ in range(BLOCK if blocked else 1):
                own, *others = [chosen[i] for i in stream.permutation(len(chosen))]
                slowdown = self.slowdown(own, others) * float(np.exp(self.noise * stream.standard_normal()))
                co_runners = [CoRunner(*other) for other in others]
                exec_ns = round(own.load.solo_ns * slowdown)
                found.append(sample_of(own, co_runners, "1", "emulated", len(found) * 1_000 * _MS, exec_ns))
        return found[:samples]


def drawn(law: GpuLaw, noise: float, *, models: int = 10, sets: int = 400, share: float = 1.0) -> Population:
    """Sets of two to four of `models` models at five sizes each, whose features tell little of u, and of w no more
    than a profiler would.

    share: of the multiprocessors that each has, alone too.
    """
    stream, off = np.random.default_rng(law.seed), np.random.default_rng((law.seed, 1))
    demands: dict[Own, KernelDemand] = {}
    for model in (f"m{i}" for i in range(models)):
        drawn, told = draw_demand(stream, model), float(np.exp(_TOLD_SD * off.standard_normal()))
        alone_ms, steep = float(np.exp(stream.uniform(log(2.0), log(12.0)))), float(stream.uniform(0.1, 0.5))
        l2, dram = stream.uniform(0.1, 0.9, 2).tolist()
        for size in SIZES:
            busy = drawn.busy_share + (1.0 - drawn.busy_share) * 0.5 * log(size) / log(SIZES[-1])
            work = drawn.work_per_kernel * (size / SIZES[2]) ** _WORK_GROWTH
            solo_ns = round(alone_ms * (1 - steep + steep * size) * _MS)
            kernel_ns = round(work * told * KERNEL_US * 1e3)
            load = Load(solo_ns, busy * float(stream.uniform(0.6, 1.0)), busy * l2, busy * dram, kernel_ns)
            demands[Own(model, size, load)] = KernelDemand(model, size, busy, work, share)
    owns = list(demands)
    chosen = [[owns[i] for i in stream.integers(len(owns), size=stream.choice(SET_SIZES))] for _ in range(sets)]

    def slowdown(own: Own, others: Sequence[Own]) -> float:
        return law.slowdown(demands[own], [demands[other] for other in others]) / law.slowdown(demands[own], [])

    return Population(chosen, slowdown, noise)


def measured(gpu: str, noise: float = 0.01) -> Population:
    """Pairs of jobs at the sizes that Gavel measured them at, with its slowdowns; it has no features of them."""
    jobs, pairs = gavel_pairs(gpu)
    owns = [Own(*_model_and_size(job), Load(10 * _MS, 0.0, 0.0, 0.0)) for job in jobs]
    slowdowns = {(owns[pair.own], owns[pair.other]): pair.slowdown for pair in pairs}
    both = [[owns[p.own], owns[p.other]] for p in pairs if (owns[p.other], owns[p.own]) in slowdowns]
    return Population(both, lambda own, others: slowdowns[own, others[0]], noise)


def _model_and_size(job: str) -> tuple[str, int]:
    model, _, size = job.partition(" (batch size ")
    return model, int(size.rstrip(")")) if size else 1


def _apart(seed: int, noise: float) -> Population:
    return drawn(GpuLaw(seed, pair_sd=_HIDDEN_SD), noise, models=6, sets=100, share=1.0 / max(SET_SIZES))


POPULATIONS: dict[str, Callable[[int], Population]] = {
    "sets of 2 to 4, the law": lambda seed: drawn(GpuLaw(seed), 0.03),
    "the same, hardly a set twice": lambda seed: drawn(GpuLaw(seed), 0.03, models=14, sets=4_000),
    "the same, no saturation": lambda seed: drawn(GpuLaw(seed, saturation=1.0), 0.03),
    "multiprocessors of their own, noise 1 %": lambda seed: _apart(seed, 0.01),
    "multiprocessors of their own, noise 3.5 %": lambda seed: _apart(seed, 0.035),
    "pairs, Gavel V100": lambda _: measured("v100"),
    "pairs, Gavel P100": lambda _: measured("p100"),
    "pairs, Gavel K80": lambda _: measured("k80"),
}
"""By name: from a seed."""
