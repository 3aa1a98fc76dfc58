"""When each running batch will finish: a timeline from finish to finish under mutual slowdown.

Pure arithmetic over additive slowdowns (predictor): between two finishes each batch progresses at 1 / slowdown.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import mul


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
    keys = [b.key for b in batches]
    pressures = [b.pressure for b in batches]
    own = [b.base - b.pressure for b in batches]
    remaining = [b.remaining_ns for b in batches]
    pressure = sum(pressures)
    now = 0.0
    for _ in range(HORIZON):
        if not keys:
            return finishes
        slowdowns = [s if (s := o + pressure) > MIN_SLOWDOWN else MIN_SLOWDOWN for o in own]
        spans = list(map(mul, remaining, slowdowns))
        step = min(spans)
        i = spans.index(step)
        now += step
        finishes[keys.pop(i)] = now
        pressure -= pressures.pop(i)
        del own[i], remaining[i], slowdowns[i]
        # Of two that end together, rounding would leave the second a little less than nothing.
        remaining = [left if (left := r - step / s) > 0.0 else 0.0 for r, s in zip(remaining, slowdowns, strict=True)]
    slowdowns = [s if (s := o + pressure) > MIN_SLOWDOWN else MIN_SLOWDOWN for o in own]
    finishes.update(zip(keys, [now + r * s for r, s in zip(remaining, slowdowns, strict=True)], strict=True))
    return finishes
