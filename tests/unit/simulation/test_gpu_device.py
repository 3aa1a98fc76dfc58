"""The emulated GPU under the production scheduler in virtual time, against the law's arithmetic."""

from __future__ import annotations

import pytest

from backend.load.arrivals import Arrival, Traffic, poisson
from backend.scheduler.core import Scheduler
from backend.simulation.gpu_device import SimulatedGpu
from backend.simulation.gpu_law import GpuEffects, GpuLaw, KernelDemand
from backend.simulation.simulator import SimulatedModel, SimulationResult, simulate
from backend.simulation.virtual_gpu import CopyEngines, VirtualGpu
from tests.fakes.builders import profile

LAW = GpuLaw(seed=7)
SOLO_NS = 10_000_000
COPIES = CopyEngines(bytes_per_ns=10.0, latency_ns=100.0)


def demand(model: str, rows: int) -> tuple[float, KernelDemand]:
    return SOLO_NS * (1 + rows) / 2, KernelDemand(model, rows, 0.8, 1.0)


def ran(plan: list[Arrival] | tuple[Arrival, ...], law: GpuLaw = LAW, lanes: int = 2) -> SimulationResult:
    models = [SimulatedModel(name, profile(10.0, 0.5, 0.2, 0.4), 8, bytes_in=10_000, bytes_out=20_000) for name in "ab"]
    return simulate(models, plan, Scheduler(lanes), SimulatedGpu(VirtualGpu(law, COPIES), demand))


def test_batches_take_what_the_law_says_and_their_copies() -> None:
    copies_s = (100.0 + 1000.0 + 100.0 + 2000.0) / 1e9
    found = ran([Arrival(0.1, "a", 1e12), Arrival(0.5, "a", 1e12), Arrival(0.5, "b", 1e12)])
    (_, a), (_, b) = demand("a", 1), demand("b", 1)
    first, *both = [request.answered_s for request in found.requests]

    assert first == pytest.approx(0.11 + copies_s, abs=1e-8)
    expected = sorted(0.5 + 0.01 * LAW.slowdown(one, [other]) for one, other in ((a, b), (b, a)))
    assert min(t for t in both if t is not None) == pytest.approx(expected[0], abs=5e-6)


def test_a_loaded_device_answers_all_and_the_same_again() -> None:
    plan = poisson([Traffic("a", 120.0, 60.0), Traffic("b", 80.0, 90.0, 2)], 3.0, 1)
    first, again = (ran(plan, GpuLaw(seed=3, effects=GpuEffects()), lanes=4).outcomes() for _ in range(2))

    assert first == again
    assert len(first) == len(plan)
    assert all(outcome.status == "ok" for outcome in first)
