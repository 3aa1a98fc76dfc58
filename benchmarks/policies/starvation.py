"""Starvation: whether a low class is ever answered in a lasting overload, and what aging late requests changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from backend.load.outcomes import percentile
from backend.scheduler.core import Scheduler
from backend.scheduler.policy import LATE_SHARE_MAX, Policy
from backend.simulation.device import VirtualDevice
from backend.simulation.simulator import SimulatedRequest, simulate
from benchmarks.harness.loads import solo_latencies_s
from benchmarks.policies.runs import RecordedDevice

LOAD, LOW = 1.5, 2
WITHIN = 20.0
"""A low-class request is to be answered within so many times its solo latency."""


class Ageless(Policy):
    """Late requests get no share of the lanes while others can still make it."""

    late_share_max: ClassVar[float] = 0.0


class Generous(Policy):
    """They may get a quarter of it."""

    late_share_max: ClassVar[float] = 0.25


CASES: dict[str, tuple[bool, type[Policy]]] = {
    "`on_miss: reject`": (True, Policy),
    "`on_miss: serve`, late requests get no share": (False, Ageless),
    f"`on_miss: serve`, up to {LATE_SHARE_MAX:.0%} of the lanes (as built)": (False, Policy),
    "`on_miss: serve`, up to 25%": (False, Generous),
}


@dataclass(frozen=True)
class Starved:
    """Results of one case. kept: per class, share of deadlines.

    Of the low class's requests that were not rejected, within: share answered within `WITHIN` × solo; median, worst: of
    their latencies, in solo latencies.
    """

    case: str
    kept: tuple[float, float]
    rejected: float
    within: float
    median: float
    worst: float


def starve(device: RecordedDevice, seconds: float) -> list[Starved]:
    """Load 1.5 for so long in virtual time."""
    plan = device.plan(LOAD, seconds, seed=0)
    solo_s = solo_latencies_s(device.profiles)
    found = []
    for case, (rejects, policy) in CASES.items():
        scheduler = Scheduler(device.lanes, policy=policy)
        ran = simulate(device.models(rejects=rejects), plan, scheduler, VirtualDevice(device.truth, 0))
        low = [r for r in ran.requests if r.arrival.priority == LOW]
        times = [(r.answered_s - r.arrival.at_s) / solo_s[r.arrival.model] for r in low if r.answered_s is not None]
        found.append(
            Starved(
                case,
                (_kept([r for r in ran.requests if r.arrival.priority != LOW]), _kept(low)),
                1.0 - len(times) / len(low),
                sum(t <= WITHIN for t in times) / len(times),
                percentile(times, 50),
                max(times),
            )
        )
    return found


def _kept(requests: list[SimulatedRequest]) -> float:
    return sum(r.outcome.met for r in requests) / len(requests)
