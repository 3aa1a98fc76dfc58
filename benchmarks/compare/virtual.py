"""The same requests as on the real server in virtual time, on a device learned from what that server recorded."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from backend.load.arrivals import Arrival
from backend.load.outcomes import Measured, Outcome, summarise
from backend.simulation.contention import Truth
from backend.simulation.device import VirtualDevice
from backend.simulation.simulator import SimulatedModel, simulate
from benchmarks.compare.spent import Spent
from benchmarks.repository import MAX_BATCH_SIZE
from benchmarks.rivals import RIVALS
from profiler.profile_file import ProfileFile


def kept_in_virtual_time(
    repeats: Iterable[Measured],
    profiles: Mapping[str, ProfileFile],
    lanes: int,
    truth: Truth,
    spent: Sequence[Spent],
    rival: str = "ours",
) -> float:
    """Median over the repeats of one load of the share of deadlines kept. rival: of `RIVALS`.

    spent: of that load on the real server; what the backend added to an execution occupies the lane, and what was
    spent outside of it is added to each latency.
    """
    around_ns = round(max(0.0, statistics.median(s.around_ms for s in spent)) * 1e6)
    outside_s = max(0.0, statistics.median(s.outside_ms for s in spent)) / 1e3
    under = RIVALS[rival]
    models = under.models(
        [
            SimulatedModel(m, file.profile(), MAX_BATCH_SIZE, rejects=True, preemptible_lanes=lanes)
            for m, file in profiles.items()
        ]
    )
    kept = []
    for m in repeats:
        plan = [Arrival(o.intended_s, o.model, o.slo_ms, o.priority) for o in m.outcomes]
        scheduler = under.scheduler(lanes, truth, ())
        ran = simulate(models, under.plan(plan), scheduler, VirtualDevice(truth, m.repeat), around_ns)
        kept.append(summarise([_later(o, outside_s) for o in ran.outcomes()], m.seconds).met_share)
    return statistics.median(kept)


def _later(outcome: Outcome, by_s: float) -> Outcome:
    return replace(outcome, answered_s=outcome.answered_s + by_s)
