"""Requests to a drawn GPU's models: rates, deadlines, classes, and what a load of 1 is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.load.arrivals import Arrival, Traffic, arrivals
from benchmarks.gpu_emulated.drawn_gpu import DrawnGpu
from benchmarks.gpu_emulated.plan import Scenario
from benchmarks.harness.loads import SLO_FACTORS

_FULL_BATCH = 4
"""Load 1 would keep the GPU's kernels busy all the time with batches of so many."""
_SLACK = 1.05
"""Factor of a deadline for what lies around an execution."""


def request_plan(drawn: DrawnGpu, scenario: Scenario, load: float, seconds: float, seed: int) -> tuple[Arrival, ...]:
    """Every request of a scenario at this load, the same for each rival."""
    shares = rate_shares(len(drawn.models), scenario)
    rate_per_s = load * full_rate_per_s(drawn, shares)
    traffic = [
        Traffic(model.name, rate_per_s * float(share), slo_ms, priority)
        for model, share, slo_ms, priority in zip(
            drawn.models, shares, deadlines_ms(drawn), classes(len(drawn.models), scenario.classes), strict=True
        )
    ]
    return arrivals(traffic, seconds, seed, scenario.arrivals)


def rate_shares(models: int, scenario: Scenario) -> Sequence[float]:
    """Each model's share of all requests."""
    weights = 1.0 / np.arange(1.0, models + 1.0) if scenario.tail else np.ones(models)
    shares: list[float] = (weights / weights.sum()).tolist()
    return shares


def full_rate_per_s(drawn: DrawnGpu, shares: Sequence[float]) -> float:
    """Requests per second of load 1: Σ u · solo latency of batches of four is then all of the time."""
    busy_ns = [m.demand(_FULL_BATCH).busy_share * m.solo_ns(_FULL_BATCH) / _FULL_BATCH for m in drawn.models]
    return 1e9 / sum(share * each for share, each in zip(shares, busy_ns, strict=True))


def deadlines_ms(drawn: DrawnGpu) -> list[float]:
    """2, 4 and 8 × the latency of a batch of one, by turns."""
    return [_SLACK * SLO_FACTORS[i % len(SLO_FACTORS)] * m.solo_ns(1) / 1e6 for i, m in enumerate(drawn.models)]


def classes(models: int, number: int) -> list[int]:
    """Priority classes, by turns over each three models, so that each class has every deadline."""
    return [1 + i // len(SLO_FACTORS) % number for i in range(models)]
