"""Sets of co-runners drawn as the law has them: models without an anchor, as they are spread in Gavel's jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from backend.simulation.gpu_law import GpuLaw, KernelDemand

BUSY_SHARE_BETA = (2.70, 1.26)
"""A Beta distribution with the quantiles that Gavel's fit gives u: p10 0.38, p50 0.71, p90 0.94."""
LOG_WORK_SD = 0.58
"""Standard deviation of ln w over Gavel's jobs."""
QUANTILES = (5, 25, 50, 75, 95)


def draw_demand(stream: np.random.Generator, model: str) -> KernelDemand:
    """A model that nothing is known of."""
    busy_share = float(np.clip(stream.beta(*BUSY_SHARE_BETA), 0.02, 1.0))
    return KernelDemand(model, 1, busy_share, float(np.exp(LOG_WORK_SD * stream.standard_normal())))


def draw_sets(draws: int, co_runners: Sequence[int], seed: int = 0) -> dict[str, Mapping[str, float]]:
    """Per number of co-runners over `draws` sets: quantiles of the slowdown, the mean of Σ 1/s (the sum of normalised
    rates), and the mean and median of the worst-hit over the least-hit.
    """
    found: dict[str, Mapping[str, float]] = {}
    for number in co_runners:
        stream = np.random.default_rng((seed, number))
        slowdowns = np.array([_set(stream, GpuLaw(seed=(seed << 32) + draw), number + 1) for draw in range(draws)])
        spread = slowdowns.max(axis=1) / slowdowns.min(axis=1)
        found[str(number)] = {
            **{f"p{q}": float(np.percentile(slowdowns, q)) for q in QUANTILES},
            "normalised_rates": float((1.0 / slowdowns).sum(axis=1).mean()),
            "worst_over_least_mean": float(spread.mean()),
            "worst_over_least_p50": float(np.median(spread)),
        }
    return found


def _set(stream: np.random.Generator, law: GpuLaw, size: int) -> list[float]:
    demands = [draw_demand(stream, f"m{i}") for i in range(size)]
    return [law.slowdown(own, [other for other in demands if other is not own]) for own in demands]
