"""Lengths and bounds of a soak."""

from __future__ import annotations

from dataclasses import dataclass

SLOPE_MAX_PERCENT = 0.5
"""Growth of a process's resident memory per ten minutes, of its median."""
JUDGED_FROM_S = 600.0
"""A slope over less than this says nothing."""


@dataclass(frozen=True)
class SoakPlan:
    """Seconds of the two phases, and how much is asked in them.

    warm_up_s, watched_s: of the load before memory is judged, and after. pause_s: mean pause of a client between two
    requests. large_mb: of the largest answer. bursts_s, reloads_s: pause between two of them. sample_s: between two
    looks at the processes.
    """

    warm_up_s: float
    watched_s: float
    pause_s: float = 0.12
    large_mb: float = 40.0
    bursts_s: float = 6.0
    reloads_s: float = 10.0
    sample_s: float = 5.0
    seed: int = 1


def plan_of(minutes: float) -> SoakPlan:
    """The first ten minutes warm up; of a soak below 20 minutes, the first half."""
    seconds = 60.0 * minutes
    warm_up_s = min(600.0, seconds / 2)
    return SoakPlan(warm_up_s, seconds - warm_up_s, sample_s=min(5.0, seconds / 60))


SHORT = SoakPlan(3.0, 5.0, pause_s=0.01, large_mb=4.0, bursts_s=0.5, reloads_s=1.0, sample_s=0.5)
"""Says nothing of memory; finds what is left behind or counted wrongly."""
