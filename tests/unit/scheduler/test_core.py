"""Which requests are launched next, which are rejected, and what is said and learned of them: a rule per test."""

from __future__ import annotations

import math

import pytest

from backend.scheduler.messages import BatchTimes, Finish, Launch, Reject
from backend.scheduler.policy import LATE_SHARE, LATE_SHARE_MAX
from predictor.features import Exposure, Own
from predictor.learners.linear import Rls
from tests.fakes.builders import MS, START_NS, Device, join, load, only_launch, only_reject
from tests.fakes.devices import HEAVY, LIGHT, busy, device, served_after

pytestmark = pytest.mark.usefixtures("audited")


# Order


def test_a_free_lane_is_taken_at_once() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    request = made.request(50.0)
    launch = only_launch(made.arrive(1, request))
    assert launch == Launch(1, 1, 0, False, (request.id,), BatchTimes(10 * MS, 10 * MS, 10 * MS), "launch", 0)
    assert only_launch(made.ask(1, 50.0)).lane == 1
    assert made.ask(1, 50.0) == []


def test_an_arrival_of_nothing_leaves_nothing_waiting() -> None:
    made = device()
    made.join(1, join(LIGHT))
    assert made.arrive(1) == []
    made.core.check_invariants()
    assert only_launch(made.ask(1)).requests == (1,)


def test_the_higher_class_goes_first() -> None:
    made, blocker = busy()
    made.ask(1, 50.0, priority=2)
    made.ask(2, 60.0, priority=1)
    assert only_launch(made.at(10).finish(blocker)).source == 2


def test_within_a_class_the_earliest_deadline_goes_first() -> None:
    made, blocker = busy(models=3)
    for source, slo_ms in ((1, 70.0), (2, 50.0), (3, 60.0)):
        made.ask(source, slo_ms)
    assert [launch.source for launch in served_after(made, blocker)] == [2, 3, 1]


def test_within_a_model_the_earliest_deadline_goes_first() -> None:
    made, blocker = busy()
    made.join(3, join(LIGHT, max_batch_size=1))
    slow, fast = made.request(90.0), made.request(50.0)
    made.arrive(3, slow, fast)
    assert only_launch(made.finish(blocker)).requests == (fast.id,)


def test_best_effort_yields_to_a_deadline() -> None:
    made, blocker = busy()
    made.ask(1)
    made.ask(2, 500.0)
    assert only_launch(made.finish(blocker)).source == 2


@pytest.mark.parametrize(("age_ms", "first"), [(900.0, 2), (1_100.0, 1)])
def test_a_class_is_worth_one_second_of_waiting(age_ms: float, first: int) -> None:
    made, blocker = busy()
    made.at(2_000)
    made.arrive(1, made.request(priority=2, age_ms=age_ms))
    made.arrive(2, made.request(priority=1))
    assert only_launch(made.finish(blocker)).source == first


# Late requests


def test_a_late_request_is_served_after_those_that_can_make_it() -> None:
    made, blocker = busy()
    made.ask(1, 5.0, priority=1)  # of a model that takes 10 ms
    made.ask(2, 90.0, priority=3)
    timely = only_launch(made.finish(blocker))
    assert timely.source == 2
    assert only_launch(made.finish(timely)).source == 1


@pytest.mark.parametrize(("priority", "slo_ms", "first"), [(3, None, 1), (3, 90.0, 2), (1, None, 2)])
def test_a_late_request_goes_before_lower_classes_without_a_deadline(
    priority: int, slo_ms: float | None, first: int
) -> None:
    """Not before one of its own class, nor one that may miss by it."""
    made, blocker = busy()
    made.ask(1, 5.0, priority=1)
    made.ask(2, slo_ms, priority=priority)
    assert only_launch(made.finish(blocker)).source == first


def test_an_idle_device_serves_a_late_request() -> None:
    made = device()
    made.join(1, join(LIGHT))
    assert only_launch(made.ask(1, -5.0)).source == 1


def run_until_served(made: Device, launch: Launch, rival: int, slo_ms: float | None) -> float:
    """Milliseconds until model 1's request is launched, while `rival` always has two requests waiting."""
    begun_ms = made.now_ms
    made.ask(rival, slo_ms)
    while launch.source != 1:
        assert made.now_ms < begun_ms + 10_000, "starved"
        made.ask(rival, slo_ms)
        made.at(made.now_ms + launch.times.solo_ns / MS)
        launch = only_launch(made.finish(launch))
    return made.now_ms - begun_ms


def test_late_requests_have_a_share_of_the_lanes_time() -> None:
    made, blocker = busy()
    made.join(3, join(LIGHT, max_batch_size=1))
    made.arrive(1, made.request(1.0))
    waited_ms = run_until_served(made, blocker, 3, 500.0)
    assert 100.0 + 10.0 / LATE_SHARE_MAX < waited_ms <= 110.0 + 10.0 / LATE_SHARE


def test_late_requests_are_not_starved_by_a_model_that_launches_in_order() -> None:
    made, blocker = busy()
    made.join(3, join(LIGHT, max_batch_size=1, aware=False))
    made.arrive(1, made.request(1.0))
    run_until_served(made, blocker, 3, None)


# Rejections


def test_a_certain_miss_is_rejected_with_the_numbers() -> None:
    made, _ = busy()
    made.join(3, join(LIGHT, rejects=True))
    request = made.request(5.0, age_ms=2.0)
    reject = only_reject(made.arrive(3, request))
    assert (reject.source, reject.request) == (3, request.id)
    assert (reject.predicted_ns, reject.allowed_ns) == (12 * MS, 5 * MS)


def test_a_request_that_became_hopeless_is_rejected_at_the_next_event() -> None:
    made, _ = busy()
    made.join(3, join(LIGHT, rejects=True))
    assert made.ask(3, 15.0) == []
    assert made.at(4.9).ask(1) == []
    reject = only_reject(made.at(8).ask(1))
    assert (reject.predicted_ns, reject.allowed_ns) == (18 * MS, 15 * MS)


def test_a_rejection_falls_due_without_another_event() -> None:
    """Rows count: the larger request is late first though it is due last."""
    made = device()
    made.join(1, join(LIGHT, rejects=True))
    only_launch(made.ask(1))
    assert made.core.wake_after_ns() == math.inf
    small, large = made.request(50.0), made.request(52.0, rows=8)
    assert made.arrive(1, small, large) == []
    for at_ms, late in ((52.0 - 17.0, large), (50.0 - 10.0, small)):
        assert made.core.wake_after_ns() == START_NS + at_ms * MS
        assert made.core.wake(round(made.core.wake_after_ns())) == []
        (reject,) = made.core.wake(round(made.core.wake_after_ns()) + 1)
        assert isinstance(reject, Reject)
        assert reject.request == late.id
    assert made.core.wake_after_ns() == math.inf


def test_one_long_pause_leaves_deadlines_that_can_be_met() -> None:
    made = device()
    made.join(1, join(LIGHT))
    launch = only_launch(made.ask(1, 60.0))
    made.at(2_000)
    made.core.handle(1, Finish(launch.batch, 10 * MS), made.now_ns)
    assert 0 < made.core.latency.overhead_ns < MS


def test_a_hopeless_low_class_is_rejected_though_a_higher_class_waits_before_it() -> None:
    made, _ = busy()
    made.join(3, join(LIGHT, rejects=True))
    high, low = made.request(400.0, priority=1), made.request(5.0, priority=3)
    assert only_reject(made.arrive(3, high, low)).request == low.id


def test_best_effort_is_never_rejected_nor_anything_where_the_user_did_not_ask_for_it() -> None:
    made, _ = busy()
    made.join(3, join(LIGHT, rejects=True))
    assert made.ask(3) == [] == made.ask(1, 1.0)
    assert made.at(90_000).ask(2) == []


# interference_aware: false


def test_in_order_means_consecutive_requests_of_one_group_up_to_the_batch_size() -> None:
    made, blocker = busy()
    made.join(3, join(LIGHT, aware=False))
    requests = [made.request(rows=rows, group=group) for rows, group in ((3, 1), (4, 1), (2, 1), (1, 2), (1, 1))]
    made.arrive(3, *requests)
    ids = [r.id for r in requests]
    assert [launch.requests for launch in served_after(made, blocker)] == [
        (ids[0], ids[1]),
        (ids[2],),
        (ids[3],),
        (ids[4],),
    ]


def test_in_order_heeds_neither_deadline_nor_class_nor_harm() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    made.join(2, join(HEAVY, aware=False, max_batch_size=1))
    made.ask(1, 10.5)
    first, second = made.request(900.0, priority=3, age_ms=1.0), made.request(20.0, priority=1)
    assert only_launch(made.arrive(2, first, second)).requests == (first.id,)


def test_models_in_order_alternate_with_the_others_by_arrival() -> None:
    made, blocker = busy(models=1)
    made.join(3, join(LIGHT, aware=False))
    made.arrive(3, made.request(age_ms=2.0))
    made.arrive(1, made.request(50.0, age_ms=1.0))
    in_order = only_launch(made.finish(blocker))
    assert in_order.source == 3
    made.arrive(3, made.request())
    assert only_launch(made.finish(in_order)).source == 1


# What is predicted and learned


def test_a_launch_has_the_forecast_times() -> None:
    made = device(lanes=2)
    made.core.latency.bound.multiplier = 1.25
    made.join(1, join(HEAVY))
    made.ask(1)
    launch = only_launch(made.ask(1))
    assert (launch.times.solo_ns, launch.times.predicted_ns, launch.times.bound_ns) == (10 * MS, 16 * MS, 20 * MS)


def test_the_predictor_is_trained_with_a_finished_batch_and_its_co_runners() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    made.join(2, join(HEAVY))
    first = only_launch(made.ask(1))
    made.at(5).ask(2)
    trained: list[tuple[Own, Exposure, float]] = []
    made.core.latency.predictor.learn_one = lambda *sample: trained.append(sample)  # type: ignore[method-assign]
    made.at(10).finish(first, exec_ms=9.5)
    ((own, seen, slowdown),) = trained
    assert (own, slowdown) == (Own("m", 1, load(10.0)), 0.95)
    assert seen.sums[:4] == (0.5, 0.5, 0.0, 0.5)
    assert seen.overlaps == ((Own("m", 1, HEAVY.at(1)), 0.5),)
    assert made.core.latency.overhead_ns == pytest.approx(0.05 * 0.5 * MS)


def test_nothing_is_learned_from_a_failed_batch() -> None:
    made, blocker = busy()
    made.at(5).finish(blocker, exec_ms=None)
    latency = made.core.latency
    assert latency.predictor.state() == Rls().state()
    assert (latency.overhead_ns, latency.bound.multiplier) == (0.0, 1.0)
