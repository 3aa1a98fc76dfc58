"""Loads of several models from their profiles: rates, deadlines and classes."""

from __future__ import annotations

from collections.abc import Mapping

from backend.load.arrivals import Traffic
from backend.load.outcomes import Outcome, first_error
from benchmarks.harness.errors import BenchmarkError
from benchmarks.models.profiles import p95_ms
from profiler.profile_file import ProfileFile

LOADS = (0.5, 0.7, 0.9, 1.1, 1.5)
SLO_FACTORS = (2.0, 4.0, 8.0)
"""Deadlines over the profiled p95 of a batch of one, by turns over the models."""
CLASSES = (1, 2)
"""Priority classes, by turns over each three models, so that each class has every factor."""


def equal_traffic(
    profiles: Mapping[str, ProfileFile], rate_per_s: float, slo_min_ms: float = 0.0
) -> tuple[Traffic, ...]:
    """Every model at the same rate, with deadlines and classes by turns."""
    return tuple(
        Traffic(
            model,
            rate_per_s,
            max(slo_min_ms, SLO_FACTORS[i % len(SLO_FACTORS)] * p95_ms(file)),
            CLASSES[i // len(SLO_FACTORS) % len(CLASSES)],
        )
        for i, (model, file) in enumerate(profiles.items())
    )


def solo_latencies_s(profiles: Mapping[str, ProfileFile]) -> dict[str, float]:
    """Latency of a batch of one, by model."""
    return {model: file.profile().at(1).solo_ns / 1e9 for model, file in profiles.items()}


def expect_answers(outcomes: list[Outcome]) -> list[Outcome]:
    """Raises BenchmarkError where every request failed."""
    if outcomes and all(o.status == "failed" for o in outcomes):
        raise BenchmarkError(f"every request failed; the first was told: {first_error(outcomes)}")
    return outcomes
