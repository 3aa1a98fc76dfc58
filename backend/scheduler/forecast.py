"""When each running batch will finish: a timeline from finish to finish under mutual slowdown.

Pure arithmetic over additive slowdowns (predictor): between two finishes each batch progresses at 1 / slowdown.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """One batch in a forecast. remaining_ns: of its solo latency; base, pressure: see `predictor.rls`."""

    key: tuple[int, int]
    remaining_ns: float
    base: float
    pressure: float


MIN_SLOWDOWN = 0.5


def forecast_finishes(batches: list[Progress]) -> dict[tuple[int, int], float]:
    """Nanoseconds from now to each batch's finish, by key, in the order of finishing."""
    finishes: dict[tuple[int, int], float] = {}
    active = [(b.key, b.remaining_ns, b.base - b.pressure, b.pressure) for b in batches]
    pressure = sum(b.pressure for b in batches)
    now = 0.0
    while active:
        step = float("inf")
        slowdowns = []
        for _, remaining, own, _ in active:
            slowdown = own + pressure
            slowdown = max(slowdown, MIN_SLOWDOWN)
            slowdowns.append(slowdown)
            step = min(step, remaining * slowdown)
        now += step
        going = []
        for (key, remaining, own, own_pressure), slowdown in zip(active, slowdowns, strict=True):
            left = remaining - step / slowdown
            if left * slowdown <= 1.0:  # within a nanosecond: this is the one, or a tie
                finishes[key] = now
                pressure -= own_pressure
            else:
                going.append((key, left, own, own_pressure))
        active = going
    return finishes
