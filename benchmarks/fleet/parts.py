"""Parts of the comparison of routers: the runs of each seed."""

from __future__ import annotations

from functools import partial

from benchmarks.fleet.fleet_run import SnapshotTiming
from benchmarks.fleet.plan import ALL_ROUTERS, BURSTS, POISSON, FleetPlan
from benchmarks.fleet.routers import OURS
from benchmarks.fleet.runs import FleetCase, run_case
from benchmarks.harness.parts import Part, Task

LOADS, AGES, BURSTY = "loads", "ages", "bursts"
_CPU_S_PER_S = 0.02
"""CPU time of a device's second of virtual time at a load of 1, a mean over routers."""


def parts(plan: FleetPlan) -> tuple[Part, ...]:
    """All parts in their order."""
    run_s = plan.device_count * (plan.warm_s + plan.seconds) * _CPU_S_PER_S
    routers = len(plan.routers)
    return (
        Part(LOADS, plan.seeds, routers * sum(plan.loads) * run_s, partial(_loads, plan)),
        Part(AGES, plan.fewer_seeds, 1.3 * len(plan.others) * sum(plan.other_loads) * run_s, partial(_ages, plan)),
        Part(BURSTY, plan.fewer_seeds, routers * run_s, partial(_bursts, plan)),
    )


def _run(plan: FleetPlan, seed: int, router: str, load: float, process: str, timing: SnapshotTiming) -> Task:
    return partial(run_case, plan, FleetCase(router, seed, load, process, timing))


def _loads(plan: FleetPlan, seed: int) -> list[Task]:
    """Every router at every load."""
    return [_run(plan, seed, r, load, POISSON, plan.timing) for load in plan.loads[::-1] for r in plan.routers[::-1]]


def _ages(plan: FleetPlan, seed: int) -> list[Task]:
    """Ours with other snapshots."""
    return [_run(plan, seed, OURS, load, POISSON, timing) for load in plan.other_loads[::-1] for timing in plan.others]


def _bursts(plan: FleetPlan, seed: int) -> list[Task]:
    """Every router, in bursts."""
    return [_run(plan, seed, r, plan.at_load, BURSTS, plan.timing) for r in plan.routers[::-1]]


def sees_snapshots(router: str) -> bool:
    """True of a router that goes by snapshots, as ours does."""
    return ALL_ROUTERS[router].needs_snapshots
