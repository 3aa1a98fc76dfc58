"""Solo latencies as learned: they decide which requests are late or rejected, and a lease's times; a rule per test."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from backend.scheduler.core import ProtocolError
from backend.scheduler.lease import STREAK
from backend.scheduler.messages import Adopt, AdoptedBatch, Cancel, Command, Finish, Join, Launch, Lease, Limit, Take
from predictor.features import Exposure, Own
from predictor.solo_latency import OLD_NS
from tests.fakes.builders import MS, Device, join, only_launch, only_reject
from tests.fakes.devices import HEAVY, LIGHT, busy, device

pytestmark = pytest.mark.usefixtures("audited")

STRICT = join(LIGHT, rejects=True)
"""Profiled: 10 ms."""
GUESSED = replace(STRICT, profiled_group=None)
OLD_MS = OLD_NS / MS


def serve(made: Device, source: int, *took_ms: float, rows: int = 1, group: int = 0) -> list[Command]:
    """One request after the other, each alone on the device; what was said as the last ended."""
    commands: list[Command] = []
    for ms in took_ms:
        (launch,) = (c for c in made.ask(source, rows=rows, group=group) if isinstance(c, Launch))
        commands = made.at(made.now_ms + ms).finish(launch, ms)
    return commands


def blocked(event: Join) -> tuple[Device, Launch]:
    """The only lane is taken by model 9; model 3 waits for it."""
    made, blocker = busy()
    made.join(3, event)
    return made, blocker


# What was never measured


def test_no_request_is_rejected_by_a_guess_and_the_first_batch_corrects_it() -> None:
    made = device()
    made.join(1, GUESSED)
    launch = only_launch(made.ask(1, 5.0))
    made.at(0.01).finish(launch, 0.01)
    assert only_launch(made.ask(1, 5.0)).times.solo_ns == pytest.approx(0.01 * MS, abs=2)


@pytest.mark.parametrize(("event", "group"), [(GUESSED, 0), (STRICT, 7)])
def test_an_unmeasured_request_is_late_only_once_its_deadline_has_passed(event: Join, group: int) -> None:
    made, _ = blocked(event)
    request = made.request(50.0, group=group)
    assert made.arrive(3, request) == []
    assert made.core.wake(made.now_ns + 50 * MS) == []
    late = only_reject(made.core.wake(made.now_ns + 50 * MS + 1))
    assert (late.source, late.predicted_ns, late.allowed_ns) == (3, 50 * MS + 1, 50 * MS)


def test_no_request_is_rejected_for_a_cold_first_run() -> None:
    made = device()
    made.join(1, GUESSED)
    for ms in (90.0, 80.0, 1.0):
        launch = only_launch(made.ask(1, 5.0))
        made.at(made.now_ms + ms).finish(launch, ms)
    assert only_launch(made.ask(1, 5.0)).times.solo_ns == pytest.approx(1 * MS)


def test_an_unmeasured_model_is_served_on_a_busy_device() -> None:
    """By the guess it could not make it; then it would wait, and the guess stay."""
    made, blocker = blocked(GUESSED)
    made.ask(1, 500.0)
    made.ask(3, 5.0)
    assert only_launch(made.at(4).finish(blocker)).source == 3


def test_an_unmeasured_model_is_served_though_it_is_late() -> None:
    made, blocker = blocked(GUESSED)
    assert made.ask(3, 5.0) == []
    assert made.at(6).core.wake(made.now_ns) == []
    assert only_reject(made.at(12).arrive(3, made.request(5.0, age_ms=6.0))).source == 3  # one at a time
    assert only_launch(made.finish(blocker)).source == 3


def test_a_guess_is_corrected_beside_co_runners_too() -> None:
    """Beside one that slows it down by 0.6."""
    made = device(lanes=2)
    made.join(1, join(HEAVY, model="other"))
    made.join(2, GUESSED)
    made.ask(1)
    launch = only_launch(made.ask(2, 5.0))
    trained: list[tuple[Own, Exposure, float]] = []
    made.core.latency.predictor.learn_one = lambda *sample: trained.append(sample)  # type: ignore[method-assign]
    made.at(1.6).finish(launch, 1.6)
    assert only_launch(made.ask(2)).times.solo_ns == pytest.approx(1.0 * MS, rel=1e-6)
    assert trained[0][2] == pytest.approx(1.6)  # not 0.16: what a guess is wrong by is no interference
    assert made.core.latency.bound.state()["recent"] == []


# What was measured wrong


def test_a_profile_that_is_wrong_by_much_is_corrected_for_lateness_and_rejections() -> None:
    made = device()
    made.join(1, STRICT)
    serve(made, 1, 260.0, 260.0, 260.0)
    request = made.request(100.0)
    reject = only_reject(made.arrive(1, request))
    assert (reject.predicted_ns, reject.allowed_ns) == (260 * MS, 100 * MS)
    assert only_launch(made.ask(1, 270.0)).times.solo_ns == 260 * MS


def test_a_model_faster_than_its_profile_is_no_longer_rejected() -> None:
    made = device()
    made.join(1, STRICT)
    assert only_reject(made.ask(1, 5.0))
    serve(made, 1, 1.0, 1.0, 1.0)
    assert only_launch(made.ask(1, 5.0)).times.solo_ns == pytest.approx(1 * MS)


def test_a_waiting_request_is_judged_by_the_latest_estimate() -> None:
    """Two that came while 260 ms were believed: the one due first is in time still."""
    made = device()
    made.join(1, STRICT)
    serve(made, 1, *[260.0] * 3)
    running = only_launch(made.ask(1))
    made.arrive(1, made.request(300.0, rows=8), made.request(560.0, rows=8))
    for _ in range(9):
        made.core.sources[1].learn_solo(1, 0, 10 * MS, made.now_ns)
    made.at(made.now_ms + 200)
    assert made.core.wake(made.now_ns) == []
    assert len(only_launch(made.finish(running, 10.0)).requests) == 1
    made.core.check_invariants()


def test_a_lease_has_the_learned_times() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    (lease,) = serve(made, 1, *[260.0] * STREAK, group=4)
    assert isinstance(lease, Lease)
    assert (lease.rows, lease.group, lease.times.solo_ns) == (1, 4, 260 * MS)
    assert lease.times.predicted_ns == pytest.approx(260 * MS, rel=0.1)
    with pytest.raises(ProtocolError, match="has no lease for 1 rows of group 5"):
        made.core.handle(1, Take(-1, made.request(group=5)), made.now_ns)
    made.core.handle(1, Take(-1, made.request(group=4)), made.now_ns)
    assert made.core.device.running[1, -1].load.solo_ns == 260 * MS


def test_two_shapes_of_a_model_are_kept_apart() -> None:
    made = device()
    made.join(1, STRICT)
    serve(made, 1, *[2.0] * 3, group=1)
    serve(made, 1, *[200.0] * 3, group=2)
    assert only_reject(made.ask(1, 100.0, group=2)).predicted_ns == pytest.approx(200 * MS)
    short = made.request(100.0, group=1)
    assert only_launch(made.arrive(1, short)).times.solo_ns == pytest.approx(2 * MS)
    assert made.arrive(1, made.request(9.0, group=2, age_ms=-200.0), made.request(9.0, group=1)) == []


def test_the_predictor_is_not_trained_with_a_wrong_solo_latency() -> None:
    made = device()
    made.join(1, join(LIGHT))
    trained: list[tuple[Own, Exposure, float]] = []
    made.core.latency.predictor.learn_one = lambda *sample: trained.append(sample)  # type: ignore[method-assign]
    serve(made, 1, *[260.0] * 6, group=3)
    assert [slowdown for _, _, slowdown in trained] == pytest.approx([1.0] * 6)
    assert trained[-1][0].load.solo_ns == 260 * MS


def test_a_measured_latency_is_kept_after_batches_with_co_runners_or_failed_or_adopted() -> None:
    made = device(lanes=2)
    for source in (1, 2):
        made.join(source, join(LIGHT, model=f"m{source}"))
    for _ in range(3):
        first, second = only_launch(made.ask(1)), only_launch(made.ask(2))
        made.at(made.now_ms + 40).finish(first, 40.0)
        made.at(made.now_ms + 1).finish(second, None)
    made.core.handle(1, Adopt((AdoptedBatch(-1, 1, 0),)), made.now_ns)
    made.core.handle(1, Finish(-1, 90 * MS), made.now_ns)
    assert only_launch(made.ask(1)).times.solo_ns == 10 * MS


def test_no_latency_is_learned_from_a_batch_that_was_suspended() -> None:
    made = device()
    for source, event in ((1, join(LIGHT, preemptible_lanes=1)), (2, join(LIGHT, model="b", preemptible_lanes=1))):
        made.join(source, event)
    patient = only_launch(made.ask(1, 5_000.0, priority=2))
    urgent = made.at(1).ask(2, 15.0)[-1]
    assert isinstance(urgent, Launch) and urgent.preempts
    made.at(11).finish(urgent, 10.0)
    made.at(20).finish(patient, 2.0)
    assert only_launch(made.ask(1)).times.solo_ns == 10 * MS


# What was measured long ago


def hopeless(made: Device, at_ms: float | None = None) -> list[Command]:
    """A request that the profile gives no chance, however soon it is launched, comes then, or now."""
    return made.at(made.now_ms if at_ms is None else at_ms).ask(3, 5.0)


def test_a_hopeless_request_is_let_through_where_the_estimate_is_old() -> None:
    made = device()
    made.join(3, STRICT)
    assert only_reject(hopeless(made, OLD_MS - 1))
    served = only_launch(hopeless(made, OLD_MS))
    assert only_reject(hopeless(made))
    made.at(OLD_MS + 2).finish(served, 2.0)
    assert only_launch(hopeless(made)).times.solo_ns == pytest.approx(2 * MS)


def test_a_hopeless_request_is_let_through_once_a_second() -> None:
    made = device()
    made.join(3, STRICT)
    served = 0
    while made.now_ms < 10_000:
        (said,) = hopeless(made)
        if isinstance(said, Launch):
            served += 1
            made.at(made.now_ms + 10).finish(said, 10.0)
        made.at(made.now_ms + 7)
    assert 8 <= served <= 10


def test_a_request_let_through_corrects_the_estimate_beside_any_co_runners_once() -> None:
    made = device(lanes=2)
    made.join(1, join(HEAVY, model="other"))
    made.join(3, STRICT)
    made.at(OLD_MS).ask(1)
    served = only_launch(hopeless(made))
    assert served.decision == "launch"
    made.at(OLD_MS + 3.2).finish(served, 3.2)
    assert only_launch(hopeless(made)).times.solo_ns == pytest.approx(2 * MS, rel=1e-6)


def test_a_request_let_through_waits_for_timely_ones_and_is_the_only_one() -> None:
    made, blocker = blocked(STRICT)
    assert hopeless(made, OLD_MS) == []
    made.at(5 * OLD_MS).ask(1, 500.0)
    assert only_reject(hopeless(made))
    timely = only_launch(made.finish(blocker))
    assert timely.source == 1
    assert only_launch(made.finish(timely)).source == 3


def test_a_request_let_through_may_be_cancelled() -> None:
    made, _ = blocked(STRICT)
    request = made.at(OLD_MS).request(5.0)
    assert made.arrive(3, request) == []
    made.core.handle(3, Cancel((request.id,)), made.now_ns)
    assert made.at(2 * OLD_MS).ask(3, 5.0) == []  # the next one


def test_in_overload_no_request_is_let_through_for_having_waited() -> None:
    made, _ = blocked(STRICT)
    for ms in (0.0, OLD_MS, 3 * OLD_MS):
        assert made.at(ms).ask(3, 15.0) == []
        late = only_reject(made.core.wake(made.now_ns + 5 * MS + 1))
        assert late.predicted_ns == 15 * MS + 1
    made.at(5 * OLD_MS)
    assert only_reject(made.arrive(3, made.request(-5.0)))  # it was over before it came


# How large batches grow


def test_more_rows_than_batches_grow_to_run_by_themselves() -> None:
    made, blocker = busy()
    made.join(3, join(LIGHT, max_batch_size=8))
    large, small, other = made.request(500.0, rows=12), made.request(500.0), made.request(500.0)
    made.arrive(3, large, small, other)
    launch = only_launch(made.finish(blocker))
    assert (launch.requests, launch.times.solo_ns) == ((large.id,), 17 * MS * 12 // 8)
    assert only_launch(made.finish(launch)).requests == (small.id, other.id)


@pytest.mark.parametrize("rows", [0, -1, 2**31])
def test_rows_that_no_tensor_has_are_refused(rows: int) -> None:
    made = device()
    made.join(1, join(LIGHT))
    with pytest.raises(ProtocolError, match=f"request 1 has {rows} rows and class 1"):
        made.ask(1, rows=rows)


def test_however_many_rows_requests_have_little_is_kept_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.scheduler.latency_model._FUNCTIONS_MAX", 20)
    made = device()
    made.join(1, join(LIGHT))
    for rows in range(1, 2**31, 2**31 // 300):
        launch = only_launch(made.ask(1, rows=rows))
        assert 0 < launch.times.predicted_ns < 2**62
        made.finish(launch)
    assert len(made.core.latency._functions) <= 20
    assert len(made.core.sources[1].solo._groups[0].owns) <= 128


def test_a_limit_found_at_run_time_holds_from_then_on() -> None:
    made, blocker = busy()
    made.join(3, join(LIGHT))
    for source in (1, 3):
        made.arrive(source, *[made.request(5_000.0) for _ in range(4)])
    launch = only_launch(made.finish(blocker))  # of model 1, and contended: what it may grow to was worked out
    assert made.core.handle(3, Limit(1), made.now_ns) == []
    alone = only_launch(made.finish(launch))
    assert (alone.source, len(alone.requests)) == (3, 1)
    assert made.core.handle(3, Limit(2), made.now_ns) == []
    assert len(only_launch(made.finish(alone)).requests) == 2


@pytest.mark.parametrize("rows", [-1, 2**31])
def test_a_limit_that_cannot_be_is_refused(rows: int) -> None:
    made = device()
    made.join(1, join(LIGHT))
    with pytest.raises(ProtocolError, match=f"source 1 limits its batches to {rows} rows"):
        made.core.handle(1, Limit(rows), made.now_ns)
    with pytest.raises(ProtocolError, match="source 2 has not joined"):
        made.core.handle(2, Limit(1), made.now_ns)


@pytest.mark.parametrize("change", ["limit", "learn"])
def test_a_model_forgets_its_knee_with_what_it_follows_from(change: str) -> None:
    made = device()
    made.join(1, join(LIGHT))
    source = made.core.sources[1]
    source.knee = (0, 1)
    if change == "limit":
        source.limit(2)
    else:
        source.learn_solo(1, 1, 50.0 * MS, made.now_ns)
    assert source.knee is None


# A model that is measured as it loads


def test_runs_of_a_loading_model_teach_what_it_takes_alone_and_nothing_else() -> None:
    """Its profile is a guess: a tenth of what this one takes."""
    made = device()
    made.core.latency.bound.multiplier = 1.5
    made.join(1, replace(GUESSED, loading=True))
    serve(made, 1, 100.0, 100.0, 100.0)
    assert made.core.learn() == 0
    assert made.core.latency.bound.multiplier == 1.5
    assert made.co_runners == []
    assert only_launch(made.ask(1)).times.solo_ns == pytest.approx(100 * MS, rel=0.01)


def test_a_loading_model_gives_way_to_all_that_serve() -> None:
    """Asked for first, at a class below theirs, its run waits while others do."""
    made, blocker = blocked(replace(GUESSED, loading=True))
    assert made.ask(3, priority=1_000) == []
    assert made.ask(1, 1_000.0) == []
    assert only_launch(made.at(made.now_ms + 1.0).finish(blocker, 1.0)).source == 1
