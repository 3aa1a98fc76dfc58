"""Batches that preempt others on their lane: a rule per test.

The device has one lane unless a test says otherwise; models take 10 ms and slow no others.
"""

from __future__ import annotations

import pytest

from backend.scheduler.messages import Adopt, AdoptedBatch, Command, Finish, Launch, Preempted
from tests.fakes.builders import MS, Device, join, only_launch, profile
from tests.fakes.devices import HEAVY, LIGHT, device

pytestmark = pytest.mark.usefixtures("audited")

OTHER, URGENT = 1, 2


def running(slo_ms: float | None, priority: int = 1, *, lanes: int = 1, **joined: int | bool) -> tuple[Device, Launch]:
    """A device whose first lane has a batch of 10 ms since 0 ms, at 1 ms."""
    made = device(lanes)
    for source in (OTHER, URGENT, 3):
        made.join(source, join(LIGHT, model=f"m{source}", **{"preemptible_lanes": lanes, **joined}))  # type: ignore[arg-type]
    other = only_launch(made.ask(OTHER, slo_ms, priority=priority))
    made.at(1)
    return made, other


def preempting(commands: list[Command], other: Launch) -> Launch:
    """The launch that the other batch is suspended for."""
    preempted, launch = commands
    assert preempted == Preempted(other.source, other.batch)
    assert isinstance(launch, Launch)
    assert launch.preempts and launch.lane == other.lane
    return launch


def test_a_request_that_would_miss_its_deadline_by_waiting_preempts() -> None:
    made, other = running(None)
    launch = preempting(made.ask(URGENT, 15.0), other)
    assert (launch.source, launch.lane, launch.times.predicted_ns) == (URGENT, 0, 10 * MS)


def test_a_request_that_can_wait_for_the_lane_does() -> None:
    made, other = running(None)
    assert made.ask(URGENT, 25.0) == []
    assert only_launch(made.at(10).finish(other)).source == URGENT


def test_a_request_without_a_deadline_waits_and_so_does_one_that_misses_it_anyway() -> None:
    made, _ = running(None)
    assert made.ask(URGENT) == []
    assert made.ask(URGENT, 5.0) == []


@pytest.mark.parametrize("slo_ms", [None, 25.0, 1_000.0])
def test_a_batch_of_a_lower_class_without_a_deadline_keeps_none_of_a_higher_one_waiting(slo_ms: float | None) -> None:
    made, other = running(None, priority=2)
    assert preempting(made.ask(URGENT, slo_ms, priority=1), other).source == URGENT


def test_one_of_a_lower_class_that_has_a_deadline_is_waited_for_as_long_as_there_is_time() -> None:
    made, other = running(1_000.0, priority=2)
    assert made.ask(URGENT, 25.0, priority=1) == []
    assert only_launch(made.at(10).finish(other)).source == URGENT


def test_what_has_no_deadline_is_waited_for_once_it_was_suspended_for_long() -> None:
    """For 8 × 10 ms at most: then it runs to its end."""
    made, other = running(None, priority=2)
    while made.now_ms < 80.0:
        first = preempting(made.ask(URGENT, priority=1), other)
        assert made.at(made.now_ms + 10).finish(first) == []
    assert made.ask(URGENT, priority=1) == []


@pytest.mark.parametrize(("slo_ms", "preempted"), [(15.0, False), (25.0, True), (5.0, True)])
def test_no_batch_of_the_same_class_is_made_to_miss(slo_ms: float, preempted: bool) -> None:
    """One with 5 ms to spare is not, one with 15 makes it all the same, one that is late misses anyway."""
    made, _ = running(slo_ms)
    assert bool(made.ask(URGENT, 12.0)) == preempted


@pytest.mark.parametrize(("slo_ms", "preempted"), [(12.0, False), (9.0, True)])
def test_a_batch_that_makes_its_deadline_only_without_the_margin_is_not_preempted(
    slo_ms: float, preempted: bool
) -> None:
    """With it 9 ms more are 13.5. One that is late by the prediction itself misses anyway."""
    made, _ = running(slo_ms)
    made.core.latency.bound.multiplier = 1.5
    assert bool(made.ask(URGENT, 12.0)) == preempted


def test_a_lower_class_may_be_made_to_miss() -> None:
    made, other = running(15.0, priority=2)
    preempting(made.ask(URGENT, 12.0, priority=1), other)


@pytest.mark.parametrize(("slo_ms", "preempted"), [(35.0, False), (45.0, True)])
def test_a_lower_class_preempts_a_higher_one_that_has_three_times_as_much_to_spare(
    slo_ms: float, preempted: bool
) -> None:
    made, _ = running(slo_ms, priority=1)
    assert bool(made.ask(URGENT, 12.0, priority=2)) == preempted


def test_a_lower_class_preempts_no_higher_one_while_a_request_of_that_class_waits() -> None:
    made, _ = running(1_000.0, priority=1)
    assert made.ask(3, 1_000.0, priority=1) == []
    assert made.ask(URGENT, 12.0, priority=2) == []


def test_a_lane_has_one_preempting_batch_at_a_time() -> None:
    made, other = running(None)
    first = preempting(made.ask(URGENT, 12.0), other)
    assert made.ask(3, 22.0) == []
    assert preempting(made.at(11).finish(first), other).source == 3


def test_a_suspended_batch_resumes_where_it_was() -> None:
    made, other = running(None)
    first = preempting(made.ask(URGENT, 12.0), other)
    assert made.at(11).finish(first, 10.0) == []
    made.core.device.advance(made.now_ns)
    (batch,) = made.core.device.batches
    assert batch.remaining_ns == pytest.approx(9 * MS)
    assert made.ask(3, 18.0) != [], "in 9 ms it would be too late"


def test_the_lane_is_free_once_both_have_ended() -> None:
    made, other = running(None)
    first = preempting(made.ask(URGENT, 12.0), other)
    assert made.ask(3) == []
    assert made.at(5).finish(other) == []
    assert only_launch(made.at(11).finish(first)).lane == 0


def test_a_suspended_batch_trains_nothing_and_is_no_co_runner() -> None:
    made, other = running(None)
    observed = []
    made.core._observer = lambda _source, batch, _finish, beside: observed.append((batch.key, beside))
    first = preempting(made.ask(URGENT, 12.0), other)
    made.core.handle(URGENT, Finish(first.batch, 10 * MS), made.at(11).now_ns)
    assert made.core.learn() == 1
    made.core.handle(OTHER, Finish(other.batch, 20 * MS), made.at(20).now_ns)
    assert made.core.learn() == 0
    assert observed == [((URGENT, first.batch), [])]


def test_a_model_whose_lanes_have_no_cores_neither_preempts_nor_is_preempted() -> None:
    made, _ = running(None, preemptible_lanes=0)
    assert made.ask(URGENT, 12.0) == []
    made, _ = running(None, lanes=1)
    made.join(4, join(LIGHT, model="m4"))
    assert made.ask(4, 12.0) == []


def test_a_model_that_launches_in_order_takes_no_part() -> None:
    made, _ = running(None, aware=False)
    assert made.ask(URGENT, 12.0) == []


def test_no_batch_is_suspended_for_ever() -> None:
    made = device()
    made.join(OTHER, join(profile(2_000.0), model="long", preemptible_lanes=1))
    made.join(URGENT, join(LIGHT, model="urgent", preemptible_lanes=1))
    other = only_launch(made.ask(OTHER))
    made.at(500)
    first = preempting(made.ask(URGENT, 12.0), other)
    made.at(510).finish(first)
    assert made.at(1_001).ask(URGENT, 12.0) == []


def test_a_batch_suspended_for_eight_times_its_own_time_is_preempted_no_more() -> None:
    made, other = running(12.0, priority=2)
    while made.now_ms < 80.0:
        first = preempting(made.ask(URGENT, 12.0), other)
        assert made.at(made.now_ms + 10).finish(first) == []
    assert made.ask(URGENT, 12.0) == []


def test_a_batch_that_still_makes_its_deadline_may_be_preempted_however_often() -> None:
    made, other = running(1_000.0)
    for _ in range(20):
        first = preempting(made.ask(URGENT, 12.0), other)
        assert made.at(made.now_ms + 10).finish(first) == []
    assert made.now_ms > 200.0


def test_the_batch_with_most_time_to_spare_is_preempted() -> None:
    made, tight = running(30.0, lanes=2)
    loose = only_launch(made.ask(OTHER, 60.0))
    assert (tight.lane, loose.lane) == (0, 1)
    launch = preempting(made.ask(URGENT, 12.0), loose)
    assert launch.lane == loose.lane


@pytest.mark.parametrize(("slo_ms", "preempted"), [(17.0, True), (15.0, False)])
def test_a_preempting_batch_runs_beside_all_but_the_suspended_one(slo_ms: float, preempted: bool) -> None:
    """In 16 ms, then; beside both it would take 22."""
    made = device(lanes=2)
    made.join(URGENT, join(LIGHT, model="urgent", preemptible_lanes=2))
    for source in (3, 4):
        made.join(source, join(HEAVY, model=f"heavy{source}", preemptible_lanes=2))
    heavy = [only_launch(made.ask(source)) for source in (3, 4)]
    made.at(1)
    if preempted:
        assert preempting(made.ask(URGENT, slo_ms), heavy[0]).times.predicted_ns == 16 * MS
    else:
        assert made.ask(URGENT, slo_ms) == []


def test_a_free_lane_is_taken_first() -> None:
    made, _ = running(None, lanes=2)
    assert only_launch(made.ask(URGENT, 12.0)).lane == 1


def test_a_preempting_batch_is_only_as_large_as_the_other_one_can_wait_for() -> None:
    made, other = running(22.5)
    requests = [made.request(13.5) for _ in range(4)]
    launch = preempting(made.arrive(URGENT, *requests), other)
    assert (len(launch.requests), launch.decision) == (2, "split")


def test_a_suspended_batch_resumes_when_the_other_process_leaves() -> None:
    made, other = running(None)
    preempting(made.ask(URGENT, 12.0), other)
    assert made.core.leave(URGENT, made.now_ns) == []
    assert made.ask(3, 12.0) != []


def test_a_suspended_batch_is_forgotten_when_its_process_leaves() -> None:
    made, other = running(None)
    first = preempting(made.ask(URGENT, 12.0), other)
    assert made.core.leave(OTHER, made.now_ns) == []
    made.at(11).finish(first)
    assert not made.core.device.running


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_batches_that_ran_without_a_scheduler_are_adopted_with_their_preemption(order: tuple[int, int]) -> None:
    made = device()
    for source in (1, 2):
        made.join(source, join(LIGHT, model=f"m{source}", preemptible_lanes=1))
    batches = {1: AdoptedBatch(-1, 1, 0, preempts=True), 2: AdoptedBatch(-1, 1, 0)}
    said = [made.core.handle(source, Adopt((batches[source],)), made.now_ns) for source in order]
    assert said == [[], [Preempted(2, -1)]]
    assert len(made.core.device.colocation) == 1
    made.core.leave(1, made.now_ns)
    made.core.check_invariants()
    assert len(made.core.device.colocation) == 1
