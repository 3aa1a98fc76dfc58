"""What the scheduler decides, one rule per test, on a device whose clock the test sets.

Unless a test says otherwise the predictor knows its prior only: neighbours add 0.3 × compute + 0.1 × l2 + 0.3 × dram
to a batch's slowdown, and the upper bound is the prediction itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from backend.scheduler.core import ProtocolError
from backend.scheduler.messages import PROTOCOL, Adopt, Arrive, Cancel, Command, Finish, Launch, Ping, RunningBatch
from backend.scheduler.policy import LATE_SHARE, LATE_SHARE_MAX, NEARLY_BEST
from predictor.features import Exposure, Own
from predictor.learners.linear import Rls
from predictor.workload import ModelProfile
from tests.unit.builders import MS, START_NS, Device, join, load, only_launch, only_reject, profile

HEAVY = profile(10.0, 1.0, 0.0, 1.0)
"""Slows its neighbours by 0.6."""
LIGHT = profile(10.0)

_devices: list[Device] = []


def device(lanes: int = 1) -> Device:
    made = Device(lanes)
    _devices.append(made)
    return made


@pytest.fixture(autouse=True)
def invariants() -> Iterator[None]:
    yield
    while _devices:
        _devices.pop().core.check_invariants()


def busy(lanes: int = 1, models: int = 2, **options: bool) -> tuple[Device, Launch]:
    """A device with models 1.. of 10 ms, whose model 9 occupies a lane until the test ends that batch."""
    made = device(lanes)
    for source in range(1, models + 1):
        made.join(source, join(LIGHT, model=f"m{source}", **options))
    made.join(9, join(profile(100.0), model="blocker"))
    return made, only_launch(made.ask(9))


def served_after(made: Device, launch: Launch) -> list[Launch]:
    """What is launched on a device of one lane as one batch after the other ends."""
    served = [launch]
    while following := made.finish(served[-1]):
        served.append(only_launch(following))
    return served[1:]


# Order


def test_a_free_lane_is_taken_at_once() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    request = made.request(50.0)
    launch = only_launch(made.arrive(1, request))
    assert launch == Launch(1, 1, 0, (request.id,), 10 * MS, 10 * MS, 10 * MS, "launch", 0)
    assert only_launch(made.ask(1, 50.0)).lane == 1
    assert made.ask(1, 50.0) == []


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


def test_an_idle_device_serves_what_is_late_already() -> None:
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
        made.at(made.now_ms + launch.solo_ns / MS)
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


def test_a_hopeless_low_class_is_rejected_though_a_higher_class_stands_before_it() -> None:
    made, _ = busy()
    made.join(3, join(LIGHT, rejects=True))
    high, low = made.request(400.0, priority=1), made.request(5.0, priority=3)
    assert only_reject(made.arrive(3, high, low)).request == low.id


def test_best_effort_is_never_rejected_nor_anything_where_the_user_did_not_ask_for_it() -> None:
    made, _ = busy()
    made.join(3, join(LIGHT, rejects=True))
    assert made.ask(3) == [] == made.ask(1, 1.0)
    assert made.at(90_000).ask(2) == []


# Holding


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
    first = Launch(1, 1, 0, (1,), 0, 0, 0, "launch", 0)
    held = only_launch(made.at(10).finish(first))
    assert (held.source, held.holds) == (2, 1)


def test_a_batch_that_is_looked_at_again_and_again_was_held_once() -> None:
    made, _ = beside(12.0, 1, 1)
    for _ in range(5):
        assert made.core.handle(1, Cancel((99,)), made.now_ns) == []
    first = Launch(1, 1, 0, (1,), 0, 0, 0, "launch", 0)
    assert only_launch(made.at(10).finish(first)).holds == 1


def test_what_would_always_harm_somebody_is_launched_once_it_has_waited_long_enough() -> None:
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
    predictor = made.core.policy.predictor
    assert isinstance(predictor, Rls)
    predictor.start(np.array([1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0]))
    made.join(1, join(profile(5.0, compute=1.0)))
    made.join(2, join(profile(10.0, compute=1.0)))
    made.ask(1)
    assert bool(made.ask(2, slo_ms)) is not held


# Batch size


def test_requests_that_wait_together_run_together() -> None:
    made, blocker = busy()
    requests = [made.request(500.0) for _ in range(5)]
    made.arrive(1, *requests)
    launch = only_launch(made.finish(blocker))
    assert launch.requests == tuple(r.id for r in requests)
    assert (launch.solo_ns, launch.decision) == (14 * MS, "launch")


def test_a_batch_is_split_where_its_tightest_deadline_demands_it() -> None:
    made, blocker = busy()
    tight, *others = [made.request(slo_ms) for slo_ms in (12.5, 500.0, 500.0, 500.0, 500.0)]
    made.arrive(1, *others, tight)
    launch = only_launch(made.finish(blocker))
    assert launch.requests == (tight.id, others[0].id, others[1].id)
    assert (launch.solo_ns, launch.decision) == (12 * MS, "split")


def test_a_batch_is_split_where_a_smaller_one_harms_nobody() -> None:
    """Beside 4 rows the running batch would lose 0.92 ms, beside 2 rows 0.74."""
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    shrinking = ModelProfile((1, 2, 4), tuple(load(ms, compute=1.0) for ms in (3.0, 3.2, 4.0)))
    made.join(2, join(shrinking, max_batch_size=4))
    made.ask(1, 10.8)
    split = only_launch(made.arrive(2, *[made.request() for _ in range(4)]))
    assert (len(split.requests), split.decision) == (2, "split")


def largest_batch(batch_ms: dict[int, float], max_batch_size: int, *, contended: bool) -> int:
    """Of a model whose batches take so long by their size, with more than enough requests waiting."""
    made, blocker = busy()
    sizes = ModelProfile(tuple(batch_ms), tuple(load(ms) for ms in batch_ms.values()))
    made.join(3, join(sizes, max_batch_size=max_batch_size))
    made.arrive(3, *[made.request(500.0) for _ in range(max_batch_size)])
    if contended:
        made.ask(1, 900.0)
    return len(only_launch(made.finish(blocker)).requests)


def test_a_batch_grows_to_the_maximum_while_no_other_model_waits() -> None:
    assert largest_batch({1: 6.0, 2: 10.0, 8: 40.0}, 8, contended=False) == 8


@pytest.mark.parametrize(
    ("batch_ms", "max_batch_size"),
    [
        ({1: 6.0, 2: 10.0, 8: 40.0}, 8),
        ({1: 10.0, 2: 11.0, 8: 17.0}, 8),
        ({1: 10.0, 2: 11.0, 8: 17.0}, 3),
        ({1: 5.0}, 8),
        ({4: 8.0, 8: 9.0}, 8),
        ({4: 8.0, 8: 30.0}, 20),
        ({1: 10.0, 4: 11.0, 16: 12.0}, 50),
    ],
)
def test_a_batch_grows_no_further_than_it_gains_while_others_wait(
    batch_ms: dict[int, float], max_batch_size: int
) -> None:
    """To the smallest size whose time per row is nearly the best of all sizes."""
    sizes = ModelProfile(tuple(batch_ms), tuple(load(ms) for ms in batch_ms.values()))
    per_row = {rows: sizes.at(rows).solo_ns / rows for rows in range(1, max_batch_size + 1)}
    good = min(rows for rows, ns in per_row.items() if ns <= min(per_row.values()) * NEARLY_BEST)
    assert largest_batch(batch_ms, max_batch_size, contended=True) == good


def test_requests_of_another_group_wait_for_a_batch_of_their_own() -> None:
    made, blocker = busy()
    a, b, c = made.request(500.0, group=1), made.request(600.0, group=2), made.request(700.0, group=1)
    made.arrive(1, a, b, c)
    launch = only_launch(made.finish(blocker))
    assert launch.requests == (a.id, c.id)
    assert only_launch(made.finish(launch)).requests == (b.id,)


def test_a_model_that_does_not_batch_runs_one_request_at_a_time() -> None:
    made, blocker = busy()
    made.join(3, join(LIGHT, max_batch_size=0))
    made.arrive(3, made.request(500.0), made.request(500.0))
    assert len(only_launch(made.finish(blocker)).requests) == 1


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


def test_models_in_order_take_turns_with_the_others_by_arrival() -> None:
    made, blocker = busy(models=1)
    made.join(3, join(LIGHT, aware=False))
    made.arrive(3, made.request(age_ms=2.0))
    made.arrive(1, made.request(50.0, age_ms=1.0))
    in_order = only_launch(made.finish(blocker))
    assert in_order.source == 3
    made.arrive(3, made.request())
    assert only_launch(made.finish(in_order)).source == 1


# What is predicted and learned


def test_a_launch_says_what_to_expect() -> None:
    made = device(lanes=2)
    made.core.policy.bound.multiplier = 1.25
    made.join(1, join(HEAVY))
    made.ask(1)
    launch = only_launch(made.ask(1))
    assert (launch.solo_ns, launch.predicted_ns, launch.bound_ns) == (10 * MS, 16 * MS, 20 * MS)


def test_a_finished_batch_teaches_what_it_suffered() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    made.join(2, join(HEAVY))
    first = only_launch(made.ask(1))
    made.at(5).ask(2)
    taught: list[tuple[Own, Exposure, float]] = []
    made.core.policy.predictor.learn_one = lambda *sample: taught.append(sample)  # type: ignore[method-assign]
    made.at(10).finish(first, exec_ms=9.5)
    ((own, seen, slowdown),) = taught
    assert (own, slowdown) == (Own("m", 1, load(10.0)), 0.95)
    assert seen.sums[:4] == (0.5, 0.5, 0.0, 0.5)
    assert seen.beside == (("m", 0.5),)
    assert made.core.policy.overhead_ns == pytest.approx(0.05 * 0.5 * MS)


def test_a_failed_batch_teaches_nothing() -> None:
    made, blocker = busy()
    made.at(5).finish(blocker, exec_ms=None)
    policy = made.core.policy
    assert policy.predictor.state() == Rls().state()
    assert (policy.overhead_ns, policy.bound.multiplier) == (0.0, 1.0)


# Sources that come and go


def test_models_that_disagree_on_the_lanes_are_refused() -> None:
    made = device(lanes=2)
    with pytest.raises(ProtocolError) as refused:
        made.join(1, join(LIGHT, model="resnet50", lanes=3))
    assert str(refused.value) == (
        "device_lanes is 3 for model 'resnet50', but this device's scheduler runs 2; "
        "give every model on the device the same value"
    )
    made.join(1, join(LIGHT, lanes=2))


def test_another_protocol_is_refused() -> None:
    with pytest.raises(ProtocolError, match="protocol 3 is not spoken here, only 2"):
        device().join(1, join(LIGHT, protocol=PROTOCOL + 1))


def test_an_adopted_batch_occupies_its_lane() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    core = made.core
    core.handle(1, Adopt((RunningBatch(-1, 1, 0), RunningBatch(-2, 1, 1), RunningBatch(-3, 1, 1))), START_NS)
    assert made.ask(1) == []
    assert core.handle(1, Finish(-2, MS), START_NS + MS) == []  # another one is still there
    made.at(2)
    assert only_launch(core.handle(1, Finish(-1, None), made.now_ns)).lane == 0
    core.learn()
    assert core.policy.predictor.state() == Rls().state()  # nobody knows when it was launched


def test_an_adopted_batch_on_a_lane_that_is_not_here_takes_the_last() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    made.core.handle(1, Adopt((RunningBatch(-1, 1, 7),)), START_NS)
    assert only_launch(made.ask(1)).lane == 0
    assert made.ask(1) == []


def test_a_model_that_leaves_frees_its_lane_for_the_others() -> None:
    made, _ = busy()
    made.ask(1, 500.0)
    made.ask(9)
    assert only_launch(made.core.leave(9, made.now_ns)).source == 1
    assert made.core.leave(9, made.now_ns) == []


def test_leaving_is_taken_even_from_a_clock_that_lags() -> None:
    made, _ = busy()
    made.at(5).ask(1, 500.0)
    assert only_launch(made.core.leave(9, START_NS)).source == 1


def test_a_cancelled_request_is_not_launched() -> None:
    made, blocker = busy()
    request = made.request(500.0)
    made.arrive(1, request)
    assert made.core.handle(1, Cancel((request.id, 12345)), made.now_ns) == []
    assert made.finish(blocker) == []


def test_more_waiting_requests_than_any_model_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.scheduler.core._MAX_WAITING", 2)
    made, _ = busy()
    made.ask(1)
    with pytest.raises(ProtocolError, match="source 1 has more than 2 requests waiting"):
        made.arrive(1, made.request(), made.request())
    assert len(made.core.sources[1].queue) == 1


def test_a_question_whether_it_lives_changes_nothing() -> None:
    made, _ = busy()
    made.ask(1)
    assert made.core.handle(1, Ping(), made.now_ns + 5) == []
    made.core.handle(1, Arrive(()), made.now_ns)


def test_a_device_has_at_least_one_lane() -> None:
    with pytest.raises(ValueError, match="a device has at least one lane, got 0"):
        Device(0)
