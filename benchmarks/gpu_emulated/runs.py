"""One rival on one draw in virtual time, and the figures of it. Emulated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import msgspec
import numpy as np

from backend.load.arrivals import Arrival
from backend.load.outcomes import Outcome, by_class
from backend.scheduler.core import Observer
from backend.simulation.contention import LinearContention
from backend.simulation.simulator import SimulatedModel, SimulationResult, simulate
from benchmarks.gpu_emulated.drawn_gpu import OVERHEAD_NS, DrawnGpu, drawn_gpu
from benchmarks.gpu_emulated.law_oracle import MODELS_MAX, law_oracle
from benchmarks.gpu_emulated.plan import ORACLE, Scenario
from benchmarks.gpu_emulated.requests import request_plan
from benchmarks.harness.deadlines_kept import DeadlinesKept
from benchmarks.rivals import RIVALS, Rival


class RunCase(msgspec.Struct, frozen=True):
    """One run: who, on what, for how long. seconds: counted after warm_s."""

    rival: str
    draw: int
    scenario: Scenario
    load: float
    lanes: int
    seconds: float
    warm_s: float


class RunFigures(DeadlinesKept, msgspec.Struct, frozen=True):
    """Figures of the requests that arrived in `seconds`, after the warm-up. requests, met: how many there were, and how
    many in time, by class; mape: of execution times as predicted at launch.
    """

    rival: str
    draw: int
    scenario: str
    load: float
    lanes: int
    seconds: float
    requests: dict[str, int]
    met: dict[str, int]
    mape: float
    rows_per_batch: float
    cpu_s: float


def run_case(case: RunCase) -> RunFigures:
    """Simulate a case. The same case gives the same figures, but for cpu_s."""
    drawn = drawn_gpu(case.draw, case.scenario.models)
    plan = request_plan(drawn, case.scenario, case.load, case.warm_s + case.seconds, case.draw)
    began_s = time.process_time()
    ran = run_rival(drawn, case.rival, case.lanes, plan)
    cpu_s = time.process_time() - began_s
    counted = [o for o in outcomes_of(plan, ran) if o.intended_s >= case.warm_s]
    classes = by_class(counted, case.seconds)
    errors = [abs(predicted - measured) / measured for predicted, measured in ran.predicted]
    answered = sum(request.answered_s is not None for request in ran.requests)
    return RunFigures(
        case.rival,
        case.draw,
        case.scenario.name,
        case.load,
        case.lanes,
        case.seconds,
        {c: s.requests for c, s in classes.items()},
        {c: s.met for c, s in classes.items()},
        float(np.mean(errors)) if errors else 0.0,
        answered / max(1, ran.batches),
        cpu_s,
    )


def run_rival(
    drawn: DrawnGpu, rival: str, lanes: int, plan: Sequence[Arrival], observer: Observer | None = None
) -> SimulationResult:
    """Simulate a rival on these requests. observer: of its batches."""
    under = rival_on(drawn, rival)
    scheduler = under.scheduler(lanes, LinearContention(), (), observer)
    return simulate(models_of(drawn, rival), under.plan(plan), scheduler, drawn.device(), OVERHEAD_NS)


def outcomes_of(plan: Sequence[Arrival], ran: SimulationResult) -> list[Outcome]:
    """Outcomes in the classes of the plan, also of a rival that knows of none."""
    found = ran.outcomes()
    if len(found) != len(plan):
        return found
    return [replace(o, priority=a.priority) for a, o in zip(plan, found, strict=True)]


@cache
def rival_on(drawn: DrawnGpu, rival: str) -> Rival:
    """A rival by its name; the oracle knows this GPU."""
    return law_oracle(drawn) if rival == ORACLE else RIVALS[rival]


@cache
def models_of(drawn: DrawnGpu, rival: str) -> list[SimulatedModel]:
    """Models as they join under this rival."""
    return rival_on(drawn, rival).models(drawn.simulated())


def can_run(rival: str, scenario: Scenario) -> bool:
    """False of the oracle where there are more models than it tells apart."""
    return rival != ORACLE or scenario.models <= MODELS_MAX
