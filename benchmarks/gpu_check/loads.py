"""How much is asked of the device, from the models' profiles. Arithmetic only."""

from __future__ import annotations

from collections.abc import Mapping

from backend.load.arrivals import Traffic
from benchmarks.compare.plan import CLASSES, SLO_FACTORS
from benchmarks.gpu_check.plan import SLO_MIN_MS
from benchmarks.harness.profiles import p95_ms
from profiler.profile_file import ProfileFile


def traffic(profiles: Mapping[str, ProfileFile], load: float) -> tuple[Traffic, ...]:
    """Equal rates of all models. A load of 1 is what one lane could answer alone, always with the best batch size."""
    rate = load / sum(_row_s(file) for file in profiles.values())
    return tuple(
        Traffic(model, rate, _slo_ms(i, file), CLASSES[i // len(SLO_FACTORS) % len(CLASSES)])
        for i, (model, file) in enumerate(profiles.items())
    )


def seconds_of(rate_per_s: float, seconds: float, requests: int) -> float:
    """How long a load lasts that is to have no more than so many requests."""
    return min(seconds, requests / rate_per_s)


def _slo_ms(i: int, file: ProfileFile) -> float:
    return max(SLO_MIN_MS, SLO_FACTORS[i % len(SLO_FACTORS)] * p95_ms(file))


def _row_s(file: ProfileFile) -> float:
    return 1.0 / max(entry.rows_per_s for entry in file.entries)
