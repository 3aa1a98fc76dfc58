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
HORIZON = 4
"""Finishes that the timeline follows one by one. Later it keeps the pressure as it is then: on a device with that
many lanes a lane that falls free is taken again, so a timeline that empties the device would be too hopeful."""


def forecast_finishes(batches: list[Progress]) -> dict[tuple[int, int], float]:
    """Nanoseconds from now to each batch's finish, by key."""
    finishes: dict[tuple[int, int], float] = {}
    pressure = sum([b.pressure for b in batches])
    active = [(b.remaining_ns, b.base - b.pressure, b) for b in batches]
    now = 0.0
    for _ in range(HORIZON):
        if not active:
            return finishes
        slowdowns = [s if (s := own + pressure) > MIN_SLOWDOWN else MIN_SLOWDOWN for _, own, _ in active]
        spans = [item[0] * s for item, s in zip(active, slowdowns, strict=True)]
        step = min(spans)
        now += step
        going = []
        for (remaining, own, batch), slowdown, span in zip(active, slowdowns, spans, strict=True):
            if span - step <= 1.0:  # within a nanosecond: this is the one, or a tie
                finishes[batch.key] = now
                pressure -= batch.pressure
            else:
                going.append((remaining - step / slowdown, own, batch))
        active = going
    for remaining, own, batch in active:
        finishes[batch.key] = now + remaining * max(own + pressure, MIN_SLOWDOWN)
    return finishes
