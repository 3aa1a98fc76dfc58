"""The clairvoyant reference of one draw next to every rival on the same requests. Emulated."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from backend.load.arrivals import Arrival
from backend.scheduler.messages import Finish
from backend.scheduler.running_batch import RunningBatch
from backend.scheduler.source import Source
from backend.simulation.gpu_law import NO_EFFECTS
from backend.simulation.simulator import SimulationResult
from benchmarks.gpu_emulated.clairvoyant.replay import PlannedBatch, Schedule
from benchmarks.gpu_emulated.clairvoyant.search import ClairvoyantSearch
from benchmarks.gpu_emulated.drawn_gpu import DrawnGpu, drawn_gpu
from benchmarks.gpu_emulated.plan import TWO_CLASSES, GpuPlan
from benchmarks.gpu_emulated.requests import request_plan
from benchmarks.gpu_emulated.runs import outcomes_of, run_rival
from predictor.features import CoRunner


class ReferenceFigures(msgspec.Struct, frozen=True):
    """Deadlines kept of `requests`, by class, by each rival and by the best schedule found.

    start: the rival whose schedule was improved; tried: schedules; cpu_s: of the search.
    """

    draw: int
    requests: dict[str, int]
    rivals: dict[str, dict[str, int]]
    start: str
    found: dict[str, int]
    tried: int
    cpu_s: float

    def kept(self, rival: str | None = None) -> float:
        """Share of all deadlines; None: by the best schedule found."""
        by_class = self.found if rival is None else self.rivals[rival]
        return sum(by_class.values()) / sum(self.requests.values())


def reference(plan: GpuPlan, draw: int, load: float, lanes: Mapping[str, int]) -> ReferenceFigures:
    """Run every rival, then improve the best one's schedule, on the most lanes. lanes: each rival's.

    On the law of means: chance that another order of launches draws anew is nothing that could be known.
    """
    effort = plan.search
    drawn = drawn_gpu(draw, TWO_CLASSES.models, NO_EFFECTS)
    requests = request_plan(drawn, TWO_CLASSES, load, plan.warm_s + effort.seconds, draw)
    kept, schedules = dict[str, dict[str, int]](), dict[str, Schedule]()
    for rival in plan.rivals:
        ran, schedules[rival] = run_with_schedule(drawn, rival, lanes[rival], requests)
        met = [i for i, o in enumerate(outcomes_of(requests, ran)) if o.met and o.intended_s >= plan.warm_s]
        kept[rival] = _by_class(requests, met)
    start = max(kept, key=lambda rival: sum(kept[rival].values()))
    began_s = time.process_time()
    found = ClairvoyantSearch(drawn, requests, max(plan.lanes), plan.warm_s, effort, draw).improve(schedules[start])
    cpu_s = time.process_time() - began_s
    counted = [i for i, arrival in enumerate(requests) if arrival.at_s >= plan.warm_s]
    by_class = _by_class(requests, found.met)
    return ReferenceFigures(draw, _by_class(requests, counted), kept, start, by_class, found.tried, cpu_s)


def run_with_schedule(
    drawn: DrawnGpu, rival: str, lanes: int, plan: Sequence[Arrival]
) -> tuple[SimulationResult, Schedule]:
    """Run a rival, and note its batches in the order of their launches."""
    noted: list[tuple[int, PlannedBatch]] = []

    def note(source: Source, batch: RunningBatch, _: Finish, __: list[CoRunner]) -> None:
        noted.append((batch.key[1], PlannedBatch(batch.launched_ns, source.join.model, batch.requests)))

    ran = run_rival(drawn, rival, lanes, plan, note)
    return ran, [batch for _, batch in sorted(noted)]


def _by_class(requests: Sequence[Arrival], places: Sequence[int]) -> dict[str, int]:
    return {str(c): n for c, n in sorted(Counter(requests[i].priority for i in places).items())}
