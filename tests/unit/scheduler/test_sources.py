"""Models that come and go, and what they may not say: a rule per test."""

from __future__ import annotations

import pytest

from backend.scheduler.core import ProtocolError
from backend.scheduler.messages import PROTOCOL, Adopt, AdoptedBatch, Arrive, Cancel, Finish, Ping
from predictor.learners.linear import Rls
from tests.fakes.builders import MS, START_NS, Device, join, only_launch
from tests.fakes.devices import LIGHT, busy, device

pytestmark = pytest.mark.usefixtures("audited")


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
    with pytest.raises(ProtocolError, match=f"protocol {PROTOCOL + 1} is not spoken here, only {PROTOCOL}"):
        device().join(1, join(LIGHT, protocol=PROTOCOL + 1))


def test_an_adopted_batch_occupies_its_lane() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    core = made.core
    core.handle(1, Adopt((AdoptedBatch(-1, 1, 0), AdoptedBatch(-2, 1, 1), AdoptedBatch(-3, 1, 1))), START_NS)
    assert made.ask(1) == []
    assert core.handle(1, Finish(-2, MS), START_NS + MS) == []  # another one is still there
    made.at(2)
    assert only_launch(core.handle(1, Finish(-1, None), made.now_ns)).lane == 0
    core.learn()
    assert core.latency.predictor.state() == Rls().state()  # its launch is unknown


def test_an_adopted_batch_on_a_lane_that_is_not_here_takes_the_last() -> None:
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    made.core.handle(1, Adopt((AdoptedBatch(-1, 1, 7),)), START_NS)
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


def test_a_ping_changes_nothing() -> None:
    made, _ = busy()
    made.ask(1)
    assert made.core.handle(1, Ping(), made.now_ns + 5) == []
    made.core.handle(1, Arrive(()), made.now_ns)


def test_a_device_has_at_least_one_lane() -> None:
    with pytest.raises(ValueError, match="a device has at least one lane, got 0"):
        Device(0)
