"""Parts of the comparison: the tasks of each draw, which processes share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.gpu_emulated.clairvoyant.reference import ReferenceFigures, reference
from benchmarks.gpu_emulated.closed_loop import ClosedFigures, closed_loop
from benchmarks.gpu_emulated.plan import OURS, PLAIN, TWO_CLASSES, GpuPlan, Served
from benchmarks.gpu_emulated.rate_search import RateFigures, largest_rate
from benchmarks.gpu_emulated.runs import RunCase, RunFigures, can_run, run_case
from benchmarks.gpu_emulated.served.turns import Turn, turns
from benchmarks.gpu_emulated.served.twin import twin_turn
from benchmarks.harness.parts import Part, Task

_CPU_S_PER_S, _CPU_S_PER_TRY = 0.2, 0.0013
"""CPU time of a second of virtual time, a mean over rivals, lanes and loads; and of a schedule that is tried."""
BestLanes = Callable[[str, float], int]
"""(rival, load) → the number of lanes by which it keeps most, of those tried."""

LANES, LOADS, OTHERS, RATES, CLOSED, REFERENCE = "lanes", "loads", "others", "rates", "closed", "reference"
TWINS = "twins"
"""Of the turns on a real server."""
KINDS: dict[str, Any] = {
    LANES: list[RunFigures],
    LOADS: list[RunFigures],
    OTHERS: list[RunFigures],
    RATES: list[RateFigures],
    CLOSED: list[ClosedFigures],
    REFERENCE: list[ReferenceFigures],
    TWINS: list[Turn],
}
"""Records of a draw, by part."""


def parts(plan: GpuPlan, best: BestLanes) -> tuple[Part, ...]:
    """All parts in their order. best: asked only once the first part is done.

    Of tasks that processes share, those that take longest come first: they are last in the plan.
    """
    run_s = (plan.warm_s + plan.seconds) * _CPU_S_PER_S
    rivals, loads, lanes = len(plan.rivals), len(plan.loads), len(plan.lanes)
    rate_s = rivals * plan.halvings * (plan.warm_s + plan.rate_seconds) * _CPU_S_PER_S / 2
    closed_s = rivals * len(plan.closed.outstanding) * len(plan.closed.lanes) * plan.closed.seconds * _CPU_S_PER_S / 4
    served = plan.served
    twin_s = len(turns(served)) * served.turn_seconds * _CPU_S_PER_S
    search_s = plan.search.seconds * (2.0 + plan.search.tries / plan.search.window_s * _CPU_S_PER_TRY)
    return (
        Part(LANES, plan.lane_draws, len(plan.everyone) * loads * lanes * run_s, partial(_lanes, plan)),
        Part(LOADS, plan.draws, (len(plan.everyone) + lanes) * loads * run_s, partial(_loads, plan, best)),
        Part(OTHERS, plan.draws, rivals * len(plan.others) * run_s, partial(_others, plan, best)),
        Part(RATES, plan.few_draws, rate_s, partial(_rates, plan, best)),
        Part(CLOSED, plan.few_draws, closed_s, partial(_closed, plan)),
        Part(REFERENCE, plan.few_draws, search_s, partial(_reference, plan, best)),
        Part(TWINS, served.chances, twin_s, partial(_twins, served)),
    )


def _run(plan: GpuPlan, draw: int, rival: str, load: float, lanes: int) -> Task:
    return partial(run_case, RunCase(rival, draw, TWO_CLASSES, load, lanes, plan.seconds, plan.warm_s))


def _lanes(plan: GpuPlan, draw: int) -> list[Task]:
    """Every rival on every number of lanes."""
    return [_run(plan, draw, r, load, n) for load in plan.loads for n in plan.lanes for r in plan.everyone[::-1]]


def _loads(plan: GpuPlan, best: BestLanes, draw: int) -> list[Task]:
    """Every rival on its best number of lanes, ours on all; `PLAIN` on the same one. Without what `_lanes` has."""
    if draw < plan.lane_draws:
        return []
    wanted = dict.fromkeys(
        (r, load, n)
        for load in plan.loads
        for r in plan.everyone[::-1]
        for n in (plan.lanes if r == OURS else (best(r, load), plan.same_lanes) if r in PLAIN else (best(r, load),))
    )
    return [_run(plan, draw, *case) for case in wanted]


def _others(plan: GpuPlan, best: BestLanes, draw: int) -> list[Task]:
    """The other scenarios, on the lanes that are best with two classes; `PLAIN` on the same ones in the first, too."""
    load = plan.at_load
    first = plan.others[0]
    scenarios = plan.others if draw < plan.few_draws else (first,)
    wanted = [(r, scenario, best(r, load)) for scenario in scenarios for r in plan.rivals]
    wanted += [(r, first, plan.same_lanes) for r in plan.rivals if r in PLAIN]
    return [
        partial(run_case, RunCase(r, draw, scenario, load, lanes, plan.seconds, plan.warm_s))
        for r, scenario, lanes in dict.fromkeys(reversed(wanted))
        if can_run(r, scenario)
    ]


def _rates(plan: GpuPlan, best: BestLanes, draw: int) -> list[Task]:
    load = min(plan.loads)
    return [
        partial(
            largest_rate,
            RunCase(r, draw, TWO_CLASSES, 1.0, best(r, load), plan.rate_seconds, plan.warm_s),
            plan.kept,
            plan.halvings,
        )
        for r in plan.rivals[::-1]
    ]


def _closed(plan: GpuPlan, draw: int) -> list[Task]:
    loop = plan.closed
    return [
        partial(closed_loop, r, draw, lanes, outstanding, loop)
        for outstanding in loop.outstanding
        for lanes in loop.lanes
        for r in plan.rivals[::-1]
    ]


def _reference(plan: GpuPlan, best: BestLanes, draw: int) -> list[Task]:
    load = plan.at_load
    return [partial(reference, plan, draw, load, {r: best(r, load) for r in plan.rivals})]


def _twins(served: Served, chance: int) -> list[Task]:
    return [partial(twin_turn, served, rival, repeat, chance) for rival, repeat in turns(served)]
