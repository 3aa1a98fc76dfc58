"""Transfers in the simulator, whose links have a known bandwidth: what they take, and what the scheduler made of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from backend.load.arrivals import Arrival, Traffic, arrivals
from backend.load.outcomes import summarise
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Command, Event, Finish
from backend.simulation.contention import LinearContention
from backend.simulation.device import Bandwidth, VirtualDevice
from backend.simulation.fixed_predictors import Unaware
from backend.simulation.simulator import SimulatedModel, SimulationResult, simulate
from tests.fakes.builders import profile

MB = 1_000_000
LINKS = Bandwidth(8.0, 4.0)
A = SimulatedModel("a", profile(10.0), 1, bytes_in=8 * MB, bytes_out=8 * MB)
"""Its inputs take 1 ms alone, its outputs 2."""
B = SimulatedModel("b", profile(10.0), 1, bytes_in=8 * MB, bytes_out=4 * MB)
PLAIN = SimulatedModel("plain", profile(10.0), 1)
NO_SLO = 1e12


def run(
    models: Sequence[SimulatedModel], plan: Sequence[Arrival], links: Bandwidth | None = LINKS
) -> tuple[SimulationResult, Scheduler]:
    """Of executions the scheduler knows that they do not slow each other down."""
    scheduler = Scheduler(3, None, Unaware())
    ran = simulate(models, plan, scheduler, VirtualDevice(LinearContention(), 0, links))
    scheduler.check_invariants()
    return ran, scheduler


def asked(*at_ms: tuple[str, float]) -> list[Arrival]:
    return [Arrival(at / 1e3, model, NO_SLO) for model, at in at_ms]


def took_ms(ran: SimulationResult) -> list[float]:
    """From each request's arrival to its answer."""
    return [1e3 * (r.answered_s - r.arrival.at_s) for r in ran.requests if r.answered_s is not None]


def test_a_batch_alone_takes_its_transfers_too() -> None:
    ran, _ = run([A, PLAIN], asked(("a", 0.0), ("plain", 100.0)))
    assert took_ms(ran) == pytest.approx([1 + 10 + 2, 10])
    assert [measured for _, measured in ran.moved] == [MB, 2 * MB]
    assert ran.busy_s == pytest.approx(0.023)


def test_without_a_bandwidth_nothing_takes_time_to_move() -> None:
    ran, scheduler = run([A], asked(("a", 0.0), ("a", 100.0)), None)
    assert took_ms(ran) == pytest.approx([10, 10])
    assert ran.moved == []
    assert scheduler.sources[1].bytes_per_row is None


def test_two_that_overlap_share_the_links_for_as_long_as_they_do() -> None:
    """In: both from 0.5 to 1.5 ms, then b alone to 2. Out: a from 11.5 ms on, b from 12 to 14."""
    ran, _ = run([A, B], asked(("a", 0.0), ("b", 0.5)))
    assert took_ms(ran) == pytest.approx([1.5 + 10 + 3, 1.5 + 10 + 2])


def test_of_two_that_overlap_the_later_is_forecast_as_it_comes() -> None:
    """Once each has run alone, its transfers and the link are known."""
    plan = asked(("a", 0.0), ("b", 100.0), ("a", 200.0), ("b", 200.5))
    ran, _ = run([A, B], plan)
    (_, a_in), (_, a_out), (b_in_expected, b_in), (b_out_expected, b_out) = sorted_moves(ran, 2)
    assert (a_in, a_out) == (1.5 * MB, 3 * MB)
    assert (b_in, b_out) == (1.5 * MB, 2 * MB)
    assert b_in_expected == pytest.approx(b_in, rel=0.05)
    assert b_out_expected == pytest.approx(b_out, rel=0.05)


def sorted_moves(ran: SimulationResult, last: int) -> list[tuple[int, int]]:
    """(forecast, measured) of the last batches: of a's inputs and outputs, then of b's, which end a little earlier."""
    (*_, b_in, b_out, a_in, a_out) = ran.moved[-2 * last :]
    return [a_in, a_out, b_in, b_out]


def busy(links: Bandwidth, seconds: float = 4.0) -> tuple[SimulationResult, Scheduler]:
    """Three models that move some MB each, on links that are in use for most of the time."""
    models = [
        SimulatedModel("a", profile(10.0, 0.5, 0.2, 0.4), bytes_in=600_000, bytes_out=4_000),
        SimulatedModel("b", profile(15.0, 0.9, 0.1, 0.1), bytes_in=3 * MB, bytes_out=MB),
        SimulatedModel("c", profile(4.0, 0.2, 0.5, 0.9), bytes_in=150_000, bytes_out=2 * MB),
    ]
    traffic = [Traffic("a", 60.0, 60.0), Traffic("b", 40.0, 90.0, 2), Traffic("c", 60.0, 40.0)]
    scheduler = Scheduler(3)
    device = VirtualDevice(LinearContention((0.3, 0.1, 0.5)), 1, links)
    ran = simulate(models, arrivals(traffic, seconds, 1, "poisson"), scheduler, device, 300_000)
    scheduler.check_invariants()
    return ran, scheduler


@pytest.mark.parametrize(("links", "share"), [(Bandwidth(12.0, 10.0), 0.95), (Bandwidth(2.0, 2.0), 0.85)])
def test_transfers_are_forecast_under_load(links: Bandwidth, share: float) -> None:
    """But for those that a batch launched later slowed down, which nobody knew of."""
    ran, scheduler = busy(links)
    forecast, measured = np.array(ran.moved[200:], np.float64).T
    assert len(measured) > 500
    assert float(np.mean(np.abs(forecast - measured) <= 0.05 * measured)) >= share
    into, out = scheduler.latency.transfers.h2d, scheduler.latency.transfers.d2h
    assert into.solo_ns(10 * MB) == pytest.approx(10 * MB / links.h2d, rel=0.02)
    assert out.solo_ns(10 * MB) == pytest.approx(10 * MB / links.d2h, rel=0.02)
    assert scheduler.latency.overhead_ns == pytest.approx(300_000, rel=0.05)


def test_a_narrow_link_is_still_known() -> None:
    _, scheduler = busy(Bandwidth(0.5, 0.5))
    assert scheduler.latency.transfers.h2d.solo_ns(MB) == pytest.approx(2 * MB, rel=0.02)
    assert scheduler.latency.transfers.d2h.solo_ns(MB) == pytest.approx(2 * MB, rel=0.02)


def test_the_same_seed_is_the_same_simulation() -> None:
    (one, _), (two, _) = (busy(Bandwidth(2.0, 2.0), 1.0) for _ in range(2))
    assert one.requests == two.requests
    assert one.moved == two.moved


class Deaf(Scheduler):
    """Never hears of a transfer: they are a cost around executions to it, the same for all."""

    def handle(self, source: int, event: Event, now_ns: int) -> list[Command]:
        heard = Finish(event.batch, event.exec_ns) if isinstance(event, Finish) else event
        return super().handle(source, heard, now_ns)


def test_deadlines_are_kept_on_a_narrow_link_by_who_knows_of_it() -> None:
    models = [
        SimulatedModel("a", profile(10.0, 0.5, 0.2, 0.4), 4, bytes_in=12 * MB, rejects=True),
        SimulatedModel("b", profile(15.0, 0.9, 0.1, 0.1), 4, bytes_in=600_000, bytes_out=MB, rejects=True),
        SimulatedModel("c", profile(4.0, 0.2, 0.5, 0.9), 4, bytes_in=6 * MB, bytes_out=2 * MB, rejects=True),
    ]
    traffic = [Traffic("a", 60.0, 50.0), Traffic("b", 50.0, 70.0, 2), Traffic("c", 70.0, 30.0)]
    plan, met = arrivals(traffic, 6.0, 1, "poisson"), []
    for scheduler in (Deaf(3), Scheduler(3)):
        ran = simulate(
            models, plan, scheduler, VirtualDevice(LinearContention((0.3, 0.1, 0.5)), 1, Bandwidth(1.5, 1.5))
        )
        met.append(summarise(ran.outcomes(), 6.0).met_share)
    assert met[1] > met[0] + 0.05
