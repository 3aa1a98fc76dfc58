"""Launches weighed against requests to come: of higher classes by their price, of their own class."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.scheduler.class_prices import CLASS_COST, FIRST_PRICE, PRICE_MAX, ClassPrices
from backend.scheduler.forecast.expected_arrivals import STREAMS_MAX, steepness, worth_of_launching
from backend.scheduler.forecast.launch_forecast import LaunchForecast
from backend.scheduler.messages import Cancel, Command, Launch, Request
from backend.scheduler.policy import IDLE_NS_MAX
from predictor.slowdown_function import ZERO_SUMS
from tests.fakes.builders import MS, Device, join, only_launch, profile
from tests.fakes.devices import HEAVY, LIGHT, device

pytestmark = pytest.mark.usefixtures("audited")


def with_class_1(requests: int = 400) -> Device:
    """A device where class 1 sends a request of 10 ms each 10 ms, due in 15; model 2 is heavy and waits for nothing."""
    made = device(1)  # of one lane no model gets a lease
    made.join(1, join(profile(10.0, 1.0, 0.0, 1.0), model="high"))
    made.join(2, join(profile(40.0, 1.0, 0.0, 1.0), model="low"))
    for _ in range(requests):
        launch = only_launch(made.ask(1, 15.0, priority=1))
        made.at(made.now_ms + 10).finish(launch)
    return made


def test_an_idle_device_is_held_for_a_higher_class_for_a_while() -> None:
    made = with_class_1()
    assert made.ask(2, 10_000.0, priority=2) == []
    until_ns = made.core.wake_after_ns()
    assert until_ns <= made.now_ns + IDLE_NS_MAX
    (launch,) = made.core.wake(int(until_ns) + 1)
    assert isinstance(launch, Launch)
    assert launch.source == 2
    assert made.core.wake_after_ns() == inf


def test_a_hold_of_an_idle_device_ends_with_what_it_was_for() -> None:
    made = with_class_1()
    assert made.ask(2, 10_000.0, priority=2) == []
    waiting = next(iter(made.core.sources[2].queue.ids()))
    assert made.core.handle(2, Cancel((waiting,)), made.now_ns) == []
    assert made.core.wake_after_ns() == inf


def test_a_higher_class_is_not_held_for_a_lower_one() -> None:
    made = with_class_1()
    assert made.ask(2, 10_000.0, priority=2) == []
    assert only_launch(made.ask(1, 15.0, priority=1)).source == 1


def launched_low(made: Device) -> list[Command]:
    return made.ask(2, 10_000.0, priority=2)


def loss_of_a_long_batch(lanes: int, running_ms: float) -> float:
    """Deadlines of class 1, requests of 10 ms due in 15, that 40 ms of class 2 would cost beside one of them.

    running_ms: since that one was launched; 0: it has ended.
    """
    made = device(lanes)
    for source, solo_ms in ((1, 10.0), (2, 40.0), (3, 10.0)):
        made.join(source, join(profile(solo_ms), model=f"m{source}"))
    for source in [1, 3] * 200:  # by turns, so that neither gets a lease
        launch = only_launch(made.ask(source, 15.0))
        made.at(made.now_ms + 10).finish(launch)
    if running_ms:
        only_launch(made.ask(1, 15.0))
        made.at(made.now_ms + running_ms)
    core = made.core
    core.device.advance(made.now_ns)
    forecast = LaunchForecast(core.latency, core.device, core.device.sums(), made.now_ns, contended=True)
    choice = forecast.choice(core.sources[2], (made.request(priority=2),))
    return forecast.expected_loss(choice, core.policy.arrivals, {1: 1.0, 2: 0.0})


def test_a_wait_for_a_lane_counts_until_the_first_is_free() -> None:
    """Four arrive in 40 ms; after a wait of 20 ms on average all miss, after one of 1 ms none, nor with a lane left."""
    assert loss_of_a_long_batch(1, 0.0) == pytest.approx(4.0, rel=0.05)
    assert loss_of_a_long_batch(2, 8.0) < 0.01
    assert loss_of_a_long_batch(2, 0.0) == pytest.approx(0.0, abs=1e-9) == loss_of_a_long_batch(3, 8.0)


def test_streams_follow_what_is_learned_few_at_a_time() -> None:
    made = device(1)
    for source in range(1, 6):
        made.join(source, join(LIGHT, model=f"m{source}"))
        made.ask(source, 15.0)
    arrivals = made.core.policy.arrivals
    forecast = arrivals.forecast(ZERO_SUMS, made.now_ns)
    assert forecast is not None
    table = forecast._table
    made.core.latency.overhead_ns = float(MS)
    arrivals.renew()
    known = []
    for _ in range(4):
        assert arrivals.forecast(ZERO_SUMS, made.now_ns) is not None
        known.append(table._around_ns.tolist().count(MS))
    assert known == [2, 4, 5, 5]


def test_a_lower_class_alone_is_not_reserved_away() -> None:
    made = device(2)
    made.join(2, join(HEAVY, model="low"))
    assert only_launch(launched_low(made)).source == 2


def test_what_is_silent_for_long_is_expected_no_more() -> None:
    made = with_class_1()
    assert only_launch(launched_low(made.at(made.now_ms + 30_000))).source == 2


def test_what_is_allowed_to_cost_all_is_launched() -> None:
    made = with_class_1()
    made.core.policy.prices.allowed = 1.0
    for _ in range(200):
        made.core.policy.prices.observe(1, 1, 0.0)
    assert made.core.policy.prices.price(1) == 1.0


def test_a_model_that_is_gone_is_expected_no_more() -> None:
    made = with_class_1()
    made.core.leave(1, made.now_ns)
    assert made.core.policy.arrivals.highest == inf
    assert only_launch(launched_low(made)).source == 2


def test_streams_are_bounded() -> None:
    made = device(1)
    made.join(1, join(LIGHT, model="m"))
    for priority in range(1, STREAMS_MAX + 20):
        made.at(made.now_ms + 1).ask(1, 1_000.0, priority=priority)
    arrivals = made.core.policy.arrivals
    assert len(arrivals.classes) == STREAMS_MAX
    assert arrivals.highest == 20 == min(arrivals.classes)


def test_what_is_predicted_well_is_decided_sharply() -> None:
    assert steepness(1.0) == steepness(1.01) > steepness(1.2) > steepness(1.6) >= steepness(100.0) > 0.0


def test_a_request_without_a_deadline_is_worth_less_than_one_that_would_miss_else() -> None:
    made = device(1)
    soon, never = made.request(15.0), made.request()

    def worth(*requests: Request) -> float:
        return worth_of_launching(requests, made.now_ns, 10 * MS, steepness(1.2))

    assert 0.0 < 10 * worth(never) < worth(soon) < 1.0
    assert worth(soon, never) == worth(soon) + worth(never)
    assert worth(made.request(-1.0)) == 0.0


@given(st.lists(st.tuples(st.integers(0, 8), st.floats(0.0, 1.0)), max_size=200), st.floats(0.0, 1.0))
def test_a_price_has_bounds(ended: list[tuple[int, float]], allowed: float) -> None:
    prices = ClassPrices(allowed)
    for requests, share in ended:
        before = prices.price(1)
        prices.observe(1, requests, requests * share)
        after = prices.price(1)
        assert 1.0 <= after <= PRICE_MAX * (1.0 + 1e-9)
        if share == 0.0:
            assert after <= before * (1.0 + 1e-9), "nothing was lost, so its price does not rise"


def test_a_price_settles_where_lower_classes_cost_what_is_allowed() -> None:
    """Lower classes cost the class more the cheaper it is."""
    prices, lost, count = ClassPrices(), 0.0, 20_000
    for _ in range(count):
        costs = min(1.0, 1.0 / prices.price(1))
        lost += costs
        prices.observe(1, 1, costs)
    assert 0.02 * CLASS_COST < lost / count <= CLASS_COST
    assert prices.price(1) > FIRST_PRICE


def test_a_price_rises_after_few_losses_and_falls_to_one_where_nothing_is_lost() -> None:
    """Lower classes pay for what they are not to blame for only for some seconds after a start."""
    kept, lost = ClassPrices(), ClassPrices()
    for _ in range(250):
        kept.observe(1, 1, 0.0)
    for _ in range(20):
        lost.observe(1, 1, 1.0)
    assert kept.price(1) == 1.0
    assert lost.price(1) > 20.0


def test_more_classes_than_are_kept_have_the_first_price() -> None:
    prices = ClassPrices()
    for priority in range(1, 100):
        prices.observe(priority, 1, 1.0)
    assert prices.price(1) > FIRST_PRICE
    assert prices.price(99) == pytest.approx(FIRST_PRICE)
