"""Samples from a simulated device whose contention is known exactly.

Batches arrive at random and slow each other down while they overlap; every finished one becomes a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from predictor.samples import SCHEMA, RecordedCoRunner, Sample
from predictor.workload import FEATURES

_SIZES = (1, 2, 4, 8, 16, 32)
_MS = 1_000_000


@dataclass(frozen=True)
class Kind:
    """One (model, batch size): what it takes alone and how much of compute, L2 and DRAM it then uses."""

    model: str
    batch_size: int
    solo_ns: int
    shares: tuple[float, float, float]
    hidden: float
    """Sensitivity beyond what its shares tell: no learner sees it."""


Law = Callable[[Kind, list[Kind]], float]


def _sums(others: list[Kind]) -> list[float]:
    return [sum(o.shares[k] for o in others) for k in range(3)]


def additive(own: Kind, others: list[Kind]) -> float:
    s = _sums(others)
    return 1.0 + own.hidden * (0.5 * s[0] + 0.3 * s[1] + 0.7 * s[2] * (0.5 + own.shares[2]))


def bottleneck(own: Kind, others: list[Kind]) -> float:
    """The scarcest resource decides: nobody suffers while everything fits."""
    s = _sums(others)
    return own.hidden * max(0.0, *(own.shares[k] + s[k] - 1.0 for k in range(3))) + 1.0 + 0.02 * len(others)


def saturating(own: Kind, others: list[Kind]) -> float:
    s = _sums(others)
    pressure = 0.6 * s[0] + 0.5 * s[1] + s[2]
    return 1.0 + own.hidden * 2.5 * own.shares[2] * pressure / (0.5 + pressure) + 0.2 * s[0]


def favouring(own: Kind, others: list[Kind]) -> float:
    """Short kernels pass long ones: who is small pays for who is large, hardly the other way round."""
    cost = sum(0.1 + o.shares[0] * 1.5 * o.solo_ns / (o.solo_ns + own.solo_ns) for o in others)
    return 1.0 + own.hidden * cost


def mixed(own: Kind, others: list[Kind]) -> float:
    """Compute is shared in turns, DRAM by its limit, cache with a knee; together they multiply."""
    s = _sums(others)
    turns = 1.0 + 0.8 * own.shares[0] * s[0]
    limit = max(1.0, own.shares[2] + s[2])
    knee = 1.0 + 0.5 * own.hidden * own.shares[1] * s[1] ** 2 / (0.2 + s[1] ** 2)
    return turns * limit * knee


LAWS: dict[str, Law] = {
    "additive": additive,
    "bottleneck": bottleneck,
    "saturating": saturating,
    "favouring": favouring,
    "mixed": mixed,
}


def kinds(count: int, rng: np.random.Generator, first: int = 0) -> list[list[Kind]]:
    """`count` models with their batch sizes."""
    models = []
    for m in range(count):
        base_ms, steep = float(np.exp(rng.uniform(0.0, 2.7))), rng.uniform(0.2, 0.9)
        peak, half, hidden = rng.uniform(0.2, 1.0, 3), rng.uniform(0.3, 6.0, 3), float(np.exp(0.3 * rng.normal()))
        sizes = []
        for size in _SIZES:
            shares = peak * size / (size + half)
            solo_ns = round(base_ms * _MS * (1 - steep + steep * size) ** 0.8)
            sizes.append(Kind(f"m{first + m}", size, solo_ns, tuple(shares.tolist()), hidden))
        models.append(sizes)
    return models


@dataclass
class _Run:
    kind: Kind
    started: float
    left: float
    present: list[tuple[Kind, float]] = field(default_factory=list)
    past: list[tuple[Kind, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Contention:
    """A load of random batches. law: of `LAWS`. new_model_at: batches before one more model appears."""

    law: str
    lanes: int = 2
    count: int = 3_000
    models: int = 10
    noise: float = 0.05
    new_model_at: int | None = None
    whole: bool = False
    """Neighbours overlap fully, as in offline pair measurements, each configuration drawn at random."""
    seed: int = 0


def generate(workload: Contention) -> list[Sample]:
    """`workload.count` samples in the order of their end."""
    rng = np.random.default_rng(workload.seed)
    models = kinds(workload.models, rng)
    newcomer = kinds(1, rng, workload.models)[0]
    return _measured(workload, models, rng) if workload.whole else _served(workload, models, newcomer, rng)


def _served(
    workload: Contention, models: list[list[Kind]], newcomer: list[Kind], rng: np.random.Generator
) -> list[Sample]:
    law, running, done = LAWS[workload.law], list[_Run](), list[Sample]()
    now, weights = 0.0, rng.dirichlet(np.ones(len(models)))
    mean_ns = float(np.mean([k.solo_ns for m in models for k in m]))
    next_arrival = 0.0
    while len(done) < workload.count:
        rates = [1.0 / law(r.kind, [o.kind for o in running if o is not r]) for r in running]
        ends = [r.left / rate for r, rate in zip(running, rates, strict=True)]
        until_arrival = max(0.0, next_arrival - now) if len(running) < workload.lanes else np.inf
        step = min([until_arrival, *ends])
        now += step
        for r, rate in zip(running, rates, strict=True):
            r.left -= step * rate
        if step == until_arrival:
            pick = models[rng.choice(len(models), p=weights)]
            if workload.new_model_at is not None and len(done) >= workload.new_model_at and rng.uniform() < 0.2:
                pick = newcomer
            _launch(running, pick[rng.integers(len(pick))], now, float(np.exp(workload.noise * rng.normal())))
            next_arrival = now + rng.exponential(mean_ns / workload.lanes * 0.8)
        else:
            done.append(_finish(running, int(np.argmin(ends)), now))
    return done


def _launch(running: list[_Run], kind: Kind, now: float, noise: float) -> None:
    run = _Run(kind, now, kind.solo_ns * noise)
    for other in running:
        other.present.append((kind, now))
        run.present.append((other.kind, now))
    running.append(run)


def _finish(running: list[_Run], index: int, now: float) -> Sample:
    run = running.pop(index)
    for other in running:
        at = next(i for i, (kind, _) in enumerate(other.present) if kind is run.kind)
        other.past.append((run.kind, other.present.pop(at)[1], now))
    span = now - run.started
    seen = [*run.past, *((kind, begin, now) for kind, begin in run.present)]
    overlaps = [(kind, (a - run.started) / span, min(1.0, (b - run.started) / span)) for kind, a, b in seen]
    return _sample(run.kind, round(run.started), span, overlaps)


def _measured(workload: Contention, models: list[list[Kind]], rng: np.random.Generator) -> list[Sample]:
    law, samples = LAWS[workload.law], []
    for i in range(workload.count):
        set_ = [
            models[rng.integers(len(models))][rng.integers(len(_SIZES))]
            for _ in range(rng.integers(2, workload.lanes + 1))
        ]
        span = set_[0].solo_ns * law(set_[0], set_[1:]) * float(np.exp(workload.noise * rng.normal()))
        samples.append(_sample(set_[0], i * 1_000 * _MS, span, [(k, 0.0, 1.0) for k in set_[1:]]))
    return samples


def _sample(kind: Kind, start_ns: int, span_ns: float, overlaps: list[tuple[Kind, float, float]]) -> Sample:
    def named(k: Kind) -> dict[str, float]:
        return dict(zip(FEATURES, k.shares, strict=True))

    return Sample(
        schema=SCHEMA,
        model=kind.model,
        batch_size=kind.batch_size,
        start_ns=start_ns,
        exec_ns=max(1, round(span_ns)),
        solo_ns=kind.solo_ns,
        device="simulated",
        features=named(kind),
        co_runners=tuple(RecordedCoRunner(k.model, k.batch_size, k.solo_ns, a, b, named(k)) for k, a, b in overlaps),
    )
