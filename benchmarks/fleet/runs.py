"""One router in front of one fleet in virtual time, and the figures of it. Emulated."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import numpy as np

from benchmarks.fleet.fleet_run import FleetRun, RoutedRequest, SnapshotTiming
from benchmarks.fleet.layout import FleetLayout, fleet_layout
from benchmarks.fleet.plan import ALL_ROUTERS, FleetPlan
from benchmarks.harness.deadlines_kept import DeadlinesKept

UNANSWERED = 1000.0
"""Degradation of a request without an answer: more than any other's."""


class FleetCase(msgspec.Struct, frozen=True):
    """One run: which router, seed, load, arrivals and snapshots."""

    router: str
    seed: int
    load: float
    process: str
    timing: SnapshotTiming


class FleetFigures(DeadlinesKept, msgspec.Struct, frozen=True):
    """Figures of the requests that came in the counted time. requests, met: how many there were, and how many in time,
    by class; degradation_p50, degradation_p90: of latency over solo latency on the type of device that it ran on;
    p50_ms: of latency; cpu_s: of the run.
    """

    case: FleetCase
    seconds: float
    requests: dict[str, int]
    met: dict[str, int]
    unanswered: int
    degradation_p50: float
    degradation_p90: float
    p50_ms: float
    cpu_s: float


def run_case(plan: FleetPlan, case: FleetCase) -> FleetFigures:
    """Simulate a case. The same case gives the same figures, but for cpu_s."""
    layout = fleet_layout(case.seed, plan.device_count, plan.model_count)
    seconds = plan.warm_s + plan.seconds
    requests = layout.requests(case.load, seconds, case.process)
    began_s = time.process_time()
    run = FleetRun(layout, ALL_ROUTERS[case.router](layout), plan.lanes, case.timing)
    found = run.run(requests, seconds + plan.grace_s)
    cpu_s = time.process_time() - began_s
    return figures_of(plan, case, layout, [r for r in found if r.arrival.at_s >= plan.warm_s], cpu_s)


def figures_of(
    plan: FleetPlan, case: FleetCase, layout: FleetLayout, counted: Sequence[RoutedRequest], cpu_s: float
) -> FleetFigures:
    """Figures of the requests that count."""
    latency_s = np.array([r.answered_s - r.arrival.at_s for r in counted])
    solo_s = np.array([layout.by_name[r.arrival.model].solo_ns(layout.gpus[r.device]) / 1e9 for r in counted])
    met = latency_s * 1e3 <= np.array([r.arrival.slo_ms for r in counted])
    classes = np.array([r.arrival.priority for r in counted])
    degradation = np.minimum(latency_s / solo_s, UNANSWERED)
    by_class = {str(c): classes == c for c in sorted(set(classes.tolist()))}
    return FleetFigures(
        case,
        plan.seconds,
        {c: int(of.sum()) for c, of in by_class.items()},
        {c: int((met & of).sum()) for c, of in by_class.items()},
        int(np.isinf(latency_s).sum()),
        float(np.percentile(degradation, 50, method="higher")),
        float(np.percentile(degradation, 90, method="higher")),
        float(min(np.percentile(latency_s, 50, method="higher") * 1e3, 1e6)),
        cpu_s,
    )
