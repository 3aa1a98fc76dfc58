"""The largest load at which a rival keeps a given share of deadlines, by bisection. Emulated."""

from __future__ import annotations

import msgspec

from benchmarks.gpu_emulated.runs import RunCase, run_case


class RateFigures(msgspec.Struct, frozen=True):
    """load, rate_per_s: the largest that was seen to keep the share; 0 where none did."""

    rival: str
    draw: int
    lanes: int
    load: float
    rate_per_s: float


def largest_rate(case: RunCase, kept: float, halvings: int) -> RateFigures:
    """Halve the bracket from load 0 to `case.load`. The share kept is taken to fall with the load."""
    low, high, rate_per_s = 0.0, case.load, 0.0
    for _ in range(halvings):
        load = (low + high) / 2
        found = run_case(msgspec.structs.replace(case, load=load))
        if found.kept() >= kept:
            low, rate_per_s = load, sum(found.requests.values()) / case.seconds
        else:
            high = load
    return RateFigures(case.rival, case.draw, case.lanes, low, rate_per_s)
