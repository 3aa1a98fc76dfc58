"""The scheduler core over random event streams, beside an independent account of where every request is.

Some of the events cannot be; those must be refused and change nothing.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Command, Launch, Preempted, Recall
from tests.properties.account import World
from tests.properties.stream import Stream

seeds = st.integers(0, 2**64 - 1)
by_seeds = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a seed does not shrink
)


@settings(by_seeds, max_examples=400)
@given(seeds)
def test_no_request_is_lost_nor_launched_twice_nor_beyond_the_lanes(seed: int) -> None:
    check(Stream(seed).run())


@pytest.mark.slow
@settings(by_seeds, max_examples=5_000)
@given(seeds)
def test_no_request_is_lost_nor_launched_twice_nor_beyond_the_lanes_in_many_streams(seed: int) -> None:
    check(Stream(seed).run())


def check(world: World) -> None:
    world.check_integral()
    world.check_training()


@settings(by_seeds, max_examples=50)
@given(seeds)
def test_all_waiting_requests_are_served_once_arrivals_cease(seed: int) -> None:
    world = Stream(seed).run()
    world.drain()
    check(world)


@settings(by_seeds, max_examples=50)
@given(seeds)
def test_the_same_events_give_the_same_commands(seed: int) -> None:
    first = Stream(seed).run()
    again = Scheduler(first.lanes)
    again.leases.streak = 1
    commands: list[Command] = []
    for at_ns, source, event in first.events:
        if event is None:
            commands += again.leave(source, at_ns)
        else:
            commands += again.handle(source, event, at_ns)
            again.learn()
    assert commands == first.commands
    assert again.latency.predictor.state() == first.core.latency.predictor.state()


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    """Of 60 seeds, at their ends."""
    return [Stream(seed).run() for seed in range(60)]


def test_the_streams_use_leases_and_take_them_back(worlds: list[World]) -> None:
    assert sum(world.taken for world in worlds) >= 10
    assert sum(isinstance(command, Recall) for world in worlds for command in world.commands) >= 5


def test_the_streams_let_batches_preempt_others(worlds: list[World]) -> None:
    commands = [command for world in worlds for command in world.commands]
    assert sum(isinstance(command, Preempted) for command in commands) >= 5
    ends = [
        batch.was_suspended for world in worlds for model in world.models.values() for batch in model.running.values()
    ]
    assert any(ends)


def test_the_streams_move_tensors_beside_each_other(worlds: list[World]) -> None:
    launches = [command for world in worlds for command in world.commands if isinstance(command, Launch)]
    assert sum(launch.times.h2d_ns > 0 for launch in launches) >= 200
    assert sum(launch.times.d2h_ns > 0 for launch in launches) >= 200


def test_the_streams_learn_solo_latencies(worlds: list[World]) -> None:
    assert sum(world.doubts for world in worlds) >= 10
    assert sum(world.guessed for world in worlds) >= 100
    launches = [command for world in worlds for command in world.commands if isinstance(command, Launch)]
    assert len({launch.times.solo_ns for launch in launches}) >= 300
