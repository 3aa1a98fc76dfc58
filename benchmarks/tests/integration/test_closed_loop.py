"""A closed loop of a low class on lanes that can be preempted, in virtual time: no high request waits for it."""

from __future__ import annotations

import pytest

from backend.load.arrivals import NO_DEADLINE_MS, Arrival
from backend.simulation.contention import LinearContention
from backend.simulation.device import VirtualDevice
from backend.simulation.simulator import SimulatedModel, simulate
from benchmarks.gpu_emulated.closed_loop import ClosedLoopScheduler
from benchmarks.models.synthetic_models import synthetic_profile
from benchmarks.rivals import RIVALS

HIGH_MS, AROUND_MS, LANES, SECONDS = 8.0, 1.0, 2, 4.0


def slowest_ms(rival: str, slo_factor: float | None) -> float:
    """Latency of the slowest high request beside eight outstanding ones of a low class; nothing slows others down.

    slo_factor: of the high ones, over their latency alone; None: no deadline.
    """
    high, low = (
        SimulatedModel(name, synthetic_profile(ms * 1e6, 0.5, 0.3, 0.2), preemptible_lanes=LANES)
        for name, ms in (("high", HIGH_MS), ("low", 18.0))
    )
    slo_ms = NO_DEADLINE_MS if slo_factor is None else slo_factor * HIGH_MS
    plan = [Arrival(0.0, low.name, NO_DEADLINE_MS, 2)] * 2_000
    plan += [Arrival(0.5 + 0.1 * i, high.name, slo_ms, 1) for i in range(round((SECONDS - 0.5) / 0.1))]
    truth = LinearContention()
    scheduler = ClosedLoopScheduler(RIVALS[rival].scheduler(LANES, truth, ()), 1, 8, round(SECONDS * 1e9))
    ran = simulate([low, high], plan, scheduler, VirtualDevice(truth, 1), round(AROUND_MS * 1e6))
    assert sum(o.status == "ok" for o in ran.outcomes() if o.priority == 2) > 100
    return max(o.latency_ms for o in ran.outcomes() if o.priority == 1)


@pytest.mark.parametrize("slo_factor", [1.3, 2.0, 4.0, None])
def test_no_request_of_a_higher_class_waits_for_a_closed_loop_without_deadlines(slo_factor: float | None) -> None:
    assert slowest_ms("isochrone", slo_factor) == pytest.approx(HIGH_MS + AROUND_MS, rel=1e-3)


def test_without_preemption_it_does() -> None:
    assert slowest_ms("isochrone, no preemption", 4.0) > 2 * HIGH_MS
