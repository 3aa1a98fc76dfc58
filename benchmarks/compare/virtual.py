"""The same requests as on the real server in virtual time, on a device learned from what that server recorded."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from backend.load.arrivals import Arrival
from backend.load.outcomes import MeasuredLoad, summarise
from backend.simulation.contention import Truth
from backend.simulation.device import VirtualDevice
from backend.simulation.simulator import SimulatedModel, simulate
from benchmarks.compare.time_breakdown import TimeBreakdown
from benchmarks.models.model_repository import MAX_BATCH_SIZE
from benchmarks.rivals import RIVALS
from profiler.profile_file import ProfileFile

_HALVINGS = 40


def kept_in_virtual_time(
    repeats: Iterable[tuple[MeasuredLoad, TimeBreakdown]],
    profiles: Mapping[str, ProfileFile],
    lanes: int,
    truth: Truth,
    rival: str = "isochrone",
) -> float:
    """Median over the repeats of one load of the share of deadlines kept. rival: of `RIVALS`.

    A repeat comes with what it spent on the real server. What the backend added to an execution occupies the lane; what
    was spent outside of it is a queue that requests pass on their way in, so that a burst waits for itself.
    """
    under = RIVALS[rival]
    models = under.models(
        [
            SimulatedModel(m, file.profile(), MAX_BATCH_SIZE, rejects=True, preemptible_lanes=lanes)
            for m, file in profiles.items()
        ]
    )
    kept = []
    for m, costs in repeats:
        sent = sorted(m.outcomes, key=lambda o: o.intended_s)
        arrived_s = passed([o.intended_s for o in sent], costs.outside_ms / 1e3)
        plan = [Arrival(at_s, o.model, o.slo_ms, o.priority) for at_s, o in zip(arrived_s, sent, strict=True)]
        around_ns = round(max(0.0, costs.around_ms) * 1e6)
        ran = simulate(
            models, under.plan(plan), under.scheduler(lanes, truth, ()), VirtualDevice(truth, m.repeat), around_ns
        )
        answered = [replace(o, intended_s=s.intended_s) for o, s in zip(ran.outcomes(), sent, strict=True)]
        kept.append(summarise(answered, m.seconds).met_share)
    return statistics.median(kept)


def passed(sent_s: Sequence[float], mean_s: float) -> list[float]:
    """Instants at which each has passed a queue of a fixed time per request, so that they are `mean_s` late on average.

    sent_s: ascending, some.
    """
    low_s, high_s = 0.0, max(0.0, mean_s)
    for _ in range(_HALVINGS):
        each_s = (low_s + high_s) / 2
        late_s = statistics.fmean(at_s - s for at_s, s in zip(_through(sent_s, each_s), sent_s, strict=True))
        low_s, high_s = (each_s, high_s) if late_s < mean_s else (low_s, each_s)
    return _through(sent_s, high_s)


def _through(sent_s: Sequence[float], each_s: float) -> list[float]:
    through, free_s = [], 0.0
    for at_s in sent_s:
        free_s = max(free_s, at_s) + each_s
        through.append(free_s)
    return through
