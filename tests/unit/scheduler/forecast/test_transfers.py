"""Forecasts of transfers on a device whose links move a byte per nanosecond, so 1 MB takes 1 ms alone.

Unless a test says otherwise a batch of models 1 to 3 has inputs of 4 MB, runs for 10 ms and has outputs of 1 MB; model
4 moves nothing.
"""

from __future__ import annotations

import pytest

from backend.scheduler.core import ProtocolError
from backend.scheduler.lease import STREAK
from backend.scheduler.messages import Adopt, AdoptedBatch, Command, Finish, Launch, Lease, Take
from predictor.features import Exposure, Own
from predictor.learners.linear import Rls
from tests.fakes.builders import MS, START_NS, Device, join, only_launch, only_reject, profile
from tests.fakes.devices import LIGHT, device

pytestmark = pytest.mark.usefixtures("audited")

IN_NS, OUT_NS, EXEC_NS = 4 * MS, 1 * MS, 10 * MS
CLOSE = 0.01


def near(*values_ms: float) -> object:
    return pytest.approx(tuple(value * MS for value in values_ms), rel=CLOSE)


def finish(
    made: Device, launch: Launch, in_ns: int = IN_NS, exec_ns: int = EXEC_NS, out_ns: int = OUT_NS
) -> list[Command]:
    """The batch ends now, having moved what it had to."""
    event = Finish(launch.batch, exec_ns, in_ns, out_ns, IN_NS, OUT_NS)
    commands = made.core.handle(launch.source, event, made.now_ns)
    made.core.learn()
    return commands


def moving(lanes: int = 3, *, rejects: bool = False) -> Device:
    """The links and what each model moves are known from batches that ran alone; at 100 ms the device is idle."""
    made = device(lanes)
    for source in (1, 2, 3, 4):
        made.join(source, join(LIGHT, model=f"m{source}", rejects=rejects))
    for size in (OUT_NS, IN_NS) * 50:
        made.core.latency.transfers.h2d.learn_one(size, size)
        made.core.latency.transfers.d2h.learn_one(size, size)
    for i, source in enumerate((1, 2, 3)):
        launch = only_launch(made.at(20 * i).ask(source))
        assert finish(made.at(20 * i + 15), launch) == []
    made.core.latency.bound.multiplier = 1.0
    return made.at(100)


def transfers(launch: Launch) -> tuple[int, int]:
    return launch.times.h2d_ns, launch.times.d2h_ns


def arrivals_ms(made: Device) -> dict[int, float]:
    """Time until each running batch's inputs are there, by source."""
    made.core.device.advance(made.now_ns)
    times, _ = made.core.device.transfer_times()
    return {key[0]: transfers.h2d_ns / MS for key, transfers in times.items()}


# What is forecast


def test_a_solo_batch_has_the_links_to_itself() -> None:
    launch = only_launch(moving().ask(1))
    assert transfers(launch) == near(4, 1)
    assert launch.times.predicted_ns == 10 * MS


def test_two_batches_share_the_way_in_for_as_long_as_both_are_on_it() -> None:
    """At 2 ms half of the first is left: at half the pace until 6 ms; then half of the second is left, alone."""
    made = moving()
    made.ask(1)
    second = only_launch(made.at(102).ask(2))
    assert transfers(second) == near(6, 1)
    assert arrivals_ms(made) == pytest.approx({1: 4.0, 2: 6.0}, rel=CLOSE)
    assert arrivals_ms(made.at(105)) == pytest.approx({1: 1.0, 2: 3.0}, rel=CLOSE)
    assert arrivals_ms(made.at(107)) == pytest.approx({1: 0.0, 2: 1.0}, rel=CLOSE)


def test_three_batches_share_the_way_in() -> None:
    """At 3 ms the first has 1.5 to go and the second 3.5: a third each; all that the third has, 4, is done at 12."""
    made = moving()
    made.ask(1)
    made.at(102).ask(2)
    third = only_launch(made.at(103).ask(3))
    assert arrivals_ms(made) == pytest.approx({1: 4.5, 2: 8.5, 3: 9.0}, rel=CLOSE)
    assert transfers(third)[0] == pytest.approx(9 * MS, rel=CLOSE)


def test_two_batches_share_the_way_out() -> None:
    """Both inputs take 8 ms, so both executions end at 18."""
    made = moving()
    made.ask(1)
    second = only_launch(made.ask(2))
    assert transfers(second) == near(8, 2)
    assert only_launch(made.at(112).ask(4)).times.d2h_ns == 0


def test_a_larger_batch_moves_more() -> None:
    made = moving(lanes=1)
    blocker = only_launch(made.ask(4))
    made.arrive(1, made.request(), made.request())
    assert transfers(only_launch(made.at(110).finish(blocker, 10.0))) == near(8, 2)


def test_a_batch_that_moves_nothing_is_not_forecast() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    launch = only_launch(made.ask(1))
    made.at(10).finish(launch, 10.0)
    core = made.core
    assert core.sources[1].bytes_per_row is None
    assert (len(core.device.transfers), core.latency.transfers.pending) == (0, False)
    assert transfers(only_launch(made.ask(1))) == (0, 0)


# What follows from it


@pytest.mark.parametrize(("slo_ms", "launched"), [(15.5, True), (14.5, False)])
def test_a_request_that_its_transfers_make_late_is_late(slo_ms: float, launched: bool) -> None:
    made = moving(lanes=1, rejects=True)
    blocker = only_launch(made.ask(4))
    request = made.at(101).request(slo_ms + 9.0)
    made.arrive(1, request)
    commands = made.at(110).finish(blocker, 10.0)
    if launched:
        assert only_launch(commands).requests == (request.id,)
    else:
        reject = only_reject(commands)
        assert (reject.predicted_ns, reject.allowed_ns) == near(9 + 15, 9 + 14.5)


@pytest.mark.parametrize(("slo_ms", "first"), [(16.0, 3), (18.0, 2)])
def test_a_request_that_would_be_late_beside_a_transfer_is_not_put_first(slo_ms: float, first: int) -> None:
    """Beside model 1's inputs, which have 2 ms to go, its own take 6 ms and it is there after 17."""
    made = moving(lanes=2)
    blocker = only_launch(made.ask(4))
    made.at(108).ask(1)
    made.ask(2, slo_ms + 2.0)
    made.ask(3, 500.0)
    assert only_launch(made.at(110).finish(blocker, 10.0)).source == first


@pytest.mark.parametrize(("slo_ms", "launched"), [(16.0, False), (18.0, True)])
def test_no_batch_is_launched_whose_inputs_would_make_another_miss(slo_ms: float, launched: bool) -> None:
    """It would be over after 15 ms alone, and after 17 beside the inputs of the other."""
    made = moving()
    made.ask(1, slo_ms)
    assert bool(made.at(102).ask(2, 500.0)) == launched
    assert only_launch(made.ask(4, 500.0)).source == 4  # which moves nothing


def test_a_running_batch_has_its_outputs_still_to_move() -> None:
    """Beside a heavy co-runner its 10 ms become 16: with the transfers 21."""
    for slo_ms, launched in ((20.5, False), (21.5, True)):
        made = moving()
        made.join(5, join(profile(100.0, 1.0, 0.0, 1.0), model="heavy"))
        made.ask(1, slo_ms)
        assert bool(made.ask(5, 500.0)) == launched


def test_an_execution_begins_once_its_inputs_are_there() -> None:
    made = moving()
    made.ask(1)
    running, left = made.core.device, []
    for at_ms in (103, 104, 106, 109):
        running.advance(made.at(at_ms).now_ns)
        left.append(next(iter(running.batches)).remaining_ns / MS)
    assert left == pytest.approx([10.0, 10.0, 8.0, 5.0], abs=0.05)


def test_a_batch_that_ends_before_its_time_leaves_the_link_to_the_others() -> None:
    made = moving()
    first = only_launch(made.ask(1))
    made.ask(2)
    made.at(102).finish(first)
    assert arrivals_ms(made) == pytest.approx({2: 3.0}, rel=CLOSE)


def test_a_lease_counts_the_transfers_in() -> None:
    made = moving(lanes=2)
    commands: list[Command] = []
    for _ in range(STREAK):
        launch = only_launch(made.ask(1))
        made.now_ms += 15
        commands = finish(made, launch)
    (lease,) = commands
    assert isinstance(lease, Lease)
    assert (lease.times.h2d_ns, lease.times.d2h_ns) == near(4, 1)
    assert made.core.handle(1, Take(-1, made.request()), made.now_ns) == []
    assert arrivals_ms(made) == pytest.approx({1: 4.0}, rel=CLOSE)


# What is learned


def test_solo_transfer_times_are_learned_from_batches_that_overlapped() -> None:
    """The first is there after 6 ms and the other after 8, of which each had the link to itself for 2."""
    made = device(lanes=2)
    for source in (1, 2):
        made.join(source, join(LIGHT, model=f"m{source}"))
    first = only_launch(made.ask(1))
    second = only_launch(made.at(2).ask(2))
    finish(made.at(17), first, in_ns=6 * MS)
    assert made.core.latency.transfers.pending  # what the second moved beside it is not known yet
    finish(made.at(19), second, in_ns=6 * MS)
    assert not made.core.latency.transfers.pending
    assert made.core.latency.transfers.h2d.solo_ns(IN_NS) == pytest.approx(4 * MS, rel=CLOSE)
    assert made.core.latency.transfers.d2h.solo_ns(OUT_NS) == pytest.approx(1 * MS, rel=CLOSE)
    assert transfers(only_launch(made.at(30).ask(1))) == near(4, 1)


def test_the_cost_around_an_execution_is_without_its_transfers() -> None:
    made = moving()
    made.core.latency.overhead_ns = 0.0
    launch = only_launch(made.ask(1))
    finish(made.at(115.5), launch)
    assert made.core.latency.overhead_ns == pytest.approx(0.05 * 0.5 * MS)


def test_only_batches_during_the_execution_are_co_runners() -> None:
    """Executed from 104 to 114: model 4 was there for half of that, and before it for nothing."""
    made = moving()
    before = only_launch(made.ask(4))
    launch = only_launch(made.ask(1))
    made.at(103).finish(before, 3.0)
    only_launch(made.at(109).ask(4))
    trained: list[tuple[Own, Exposure, float]] = []
    made.core.latency.predictor.learn_one = lambda *sample: trained.append(sample)  # type: ignore[method-assign]
    finish(made.at(115), launch)
    ((own, seen, slowdown),) = trained
    assert (own.model, slowdown) == ("m1", 1.0)
    assert seen.sums[0] == pytest.approx(0.5)
    assert {other.model: overlap for other, overlap in seen.overlaps} == pytest.approx({"m4": 0.5})


def test_no_transfers_are_learned_from_a_batch_that_failed_or_was_adopted() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    failed = only_launch(made.ask(1))
    made.core.handle(1, Finish(failed.batch, None, 5, 5, 5, 5), made.at(1).now_ns)
    made.core.handle(1, Adopt((AdoptedBatch(-1, 1, 0),)), made.now_ns)
    made.core.handle(1, Finish(-1, MS, 5, 5, 5, 5), made.at(2).now_ns)
    made.core.learn()
    assert made.core.sources[1].bytes_per_row is None
    assert not made.core.latency.transfers.pending
    assert made.core.latency.predictor.state() == Rls().state()


@pytest.mark.parametrize("moved", [(-1, 0, 0, 0), (0, -1, 0, 0), (0, 0, -1, 0), (0, 0, 0, -1)])
def test_less_than_nothing_cannot_be_moved(moved: tuple[int, int, int, int]) -> None:
    made = device()
    made.join(1, join(LIGHT))
    launch = only_launch(made.ask(1))
    with pytest.raises(ProtocolError, match="batch 1 of source 1 moved less than nothing"):
        made.core.handle(1, Finish(launch.batch, MS, *moved), START_NS + MS)
    assert made.at(10).finish(launch, 10.0) == []


def test_impossible_transfer_times_leave_the_forecast_sound() -> None:
    """Longer than since the launch: no more is believed than passed."""
    made = moving()
    launch = only_launch(made.ask(1))
    finish(made.at(115), launch, in_ns=10**15, out_ns=10**15)
    assert transfers(only_launch(made.ask(1)))[0] < 16 * MS
