"""The scheduler core over random event streams, beside an independent account of where every request is.

Some of the events cannot be; those must be refused and change nothing.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Command, Launch, Preempted, Recall
from tests.properties.checked_scheduler import CheckedScheduler
from tests.properties.invariants import check_integral, check_training
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


def check(scheduler: CheckedScheduler) -> None:
    check_integral(scheduler.core, scheduler.account)
    check_training(scheduler.predictor, scheduler.account)


@settings(by_seeds, max_examples=50)
@given(seeds)
def test_all_waiting_requests_are_served_once_arrivals_cease(seed: int) -> None:
    scheduler = Stream(seed).run()
    scheduler.drain()
    check(scheduler)


@settings(by_seeds, max_examples=50)
@given(seeds)
def test_the_same_events_give_the_same_commands(seed: int) -> None:
    first = Stream(seed).run()
    again = Scheduler(first.account.lanes)
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
def ran() -> list[CheckedScheduler]:
    """Schedulers at the ends of 60 streams."""
    return [Stream(seed).run() for seed in range(60)]


def test_the_streams_use_leases_and_take_them_back(ran: list[CheckedScheduler]) -> None:
    assert sum(one.account.taken for one in ran) >= 10
    assert sum(isinstance(command, Recall) for one in ran for command in one.commands) >= 5


def test_the_streams_let_batches_preempt_others(ran: list[CheckedScheduler]) -> None:
    commands = [command for one in ran for command in one.commands]
    assert sum(isinstance(command, Preempted) for command in commands) >= 5
    ends = [
        batch.was_suspended for one in ran for model in one.account.models.values() for batch in model.running.values()
    ]
    assert any(ends)


def test_the_streams_move_tensors_beside_each_other(ran: list[CheckedScheduler]) -> None:
    launches = [command for one in ran for command in one.commands if isinstance(command, Launch)]
    assert sum(launch.times.h2d_ns > 0 for launch in launches) >= 200
    assert sum(launch.times.d2h_ns > 0 for launch in launches) >= 200


def test_the_streams_learn_solo_latencies(ran: list[CheckedScheduler]) -> None:
    assert sum(one.account.doubts for one in ran) >= 10
    assert sum(one.account.guessed for one in ran) >= 100
    launches = [command for one in ran for command in one.commands if isinstance(command, Launch)]
    assert len({launch.times.solo_ns for launch in launches}) >= 300
