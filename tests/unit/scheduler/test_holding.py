"""Holds: lanes left free for the sake of running or waiting batches; a rule per test."""

from __future__ import annotations

import numpy as np
import pytest

from backend.scheduler.messages import BatchTimes, Cancel, Command, Launch
from predictor.learners.linear import Rls
from tests.fakes.builders import Device, join, only_launch, profile
from tests.fakes.devices import HEAVY, LIGHT, device

pytestmark = pytest.mark.usefixtures("audited")


def beside(running_slo_ms: float | None, running_class: int, candidate_class: int) -> tuple[Device, list[Command]]:
    """A heavy candidate arrives on a free lane beside a 10 ms batch, which would take nearly 16 ms then."""
    made = device(lanes=2)
    made.join(1, join(LIGHT, model="running"))
    made.join(2, join(HEAVY, model="candidate"))
    only_launch(made.ask(1, running_slo_ms, priority=running_class))
    return made, made.at(1).ask(2, 1_000.0, priority=candidate_class)


@pytest.mark.parametrize("running_class", [1, 2])
def test_a_launch_that_makes_a_running_batch_miss_is_held(running_class: int) -> None:
    made, commands = beside(12.0, running_class, candidate_class=2)
    assert commands == []
    first = Launch(1, 1, 0, False, (1,), BatchTimes(0, 0, 0), "launch", 0)
    held = only_launch(made.at(10).finish(first))
    assert (held.source, held.holds) == (2, 1)


def test_a_batch_that_is_looked_at_again_and_again_was_held_once() -> None:
    made, _ = beside(12.0, 1, 1)
    for _ in range(5):
        assert made.core.handle(1, Cancel((99,)), made.now_ns) == []
    first = Launch(1, 1, 0, False, (1,), BatchTimes(0, 0, 0), "launch", 0)
    held = only_launch(made.at(10).finish(first))
    assert held.holds == 1
    made.finish(held)
    assert only_launch(made.ask(held.source)).holds == 0, "a launch ends the count of its model"


def test_a_batch_that_would_always_harm_another_is_launched_once_it_has_waited_long_enough() -> None:
    made = device(lanes=2)
    for source in (1, 2):
        made.join(source, join(LIGHT, model=f"tight{source}", max_batch_size=1))
    made.join(3, join(HEAVY, model="heavy"))
    running = {1: only_launch(made.ask(1, 12.0))}
    running[2] = only_launch(made.at(5).ask(2, 12.0))
    made.ask(3)
    for turn in range(2_000):  # one of the two always runs, and ends within 12 ms only if the heavy one is held
        source = 1 + turn % 2
        ended = running.pop(source)
        made.at(made.now_ms + 5)
        commands = made.arrive(source, made.request(12.0)) + made.finish(ended)
        launched = {launch.source: launch for launch in commands if isinstance(launch, Launch)}
        if 3 in launched:
            assert made.now_ms > 1_000
            return
        running[source] = launched[source]
    pytest.fail(f"starved for {made.now_ms:.0f} ms")


def test_a_lower_class_is_not_spared() -> None:
    assert only_launch(beside(12.0, running_class=2, candidate_class=1)[1]).source == 2


@pytest.mark.parametrize("slo_ms", [None, 30.0])
def test_a_batch_with_time_to_spare_is_not_spared(slo_ms: float | None) -> None:
    assert only_launch(beside(slo_ms, 1, 1)[1]).source == 2


def test_a_batch_that_misses_anyway_is_not_spared() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    made.join(2, join(HEAVY))
    made.ask(1, 8.0)
    assert only_launch(made.at(1).ask(2, 1_000.0)).source == 2


def test_a_held_candidate_leaves_the_lane_to_the_next_one() -> None:
    made, _ = beside(12.0, 1, 1)
    made.join(3, join(LIGHT, model="harmless"))
    assert only_launch(made.ask(3, 2_000.0)).source == 3


@pytest.mark.parametrize(("slo_ms", "held"), [(17.0, True), (21.0, False), (14.0, False)])
def test_a_batch_waits_for_the_next_finish_where_only_that_meets_its_deadline(slo_ms: float, held: bool) -> None:
    """Beside each other both take thrice as long, so launched now it ends at 20 ms, at the next finish at 15 ms."""
    made = device(lanes=2)
    predictor = made.core.latency.predictor
    assert isinstance(predictor, Rls)
    predictor.start(np.array([1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0]))
    made.join(1, join(profile(5.0, compute=1.0)))
    made.join(2, join(profile(10.0, compute=1.0)))
    made.ask(1)
    assert bool(made.ask(2, slo_ms)) is not held
