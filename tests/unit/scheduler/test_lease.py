"""The lease: who may launch without asking, when it is asked back, and that nothing is lost on the way."""

from __future__ import annotations

import pytest

from backend.scheduler.core import ProtocolError
from backend.scheduler.lease import STREAK
from backend.scheduler.messages import Command, Finish, Lease, Recall, Return, Take
from tests.fakes.builders import MS, Device, join, only_launch, profile


def leased_device() -> tuple[Device, Lease]:
    """Two lanes, two models; the first had the device to itself for a while."""
    device = Device(lanes=2)
    device.join(1, join(profile()))
    device.join(2, join(profile()))
    return device, leased(device)


def leased(device: Device) -> Lease:
    """The lease of the first model, once it had the device to itself for a while."""
    commands: list[Command] = []
    for _ in range(STREAK):
        assert commands == []
        launch = only_launch(device.ask(1))
        device.now_ms += 10.0
        commands = device.finish(launch, 10.0)
    (lease,) = commands
    assert isinstance(lease, Lease)
    return lease


def take(device: Device, batch: int, rows: int = 1) -> list[Command]:
    return device.core.handle(1, Take(batch, device.request(rows=rows)), device.now_ns)


def test_a_model_that_has_the_device_to_itself_may_launch_without_asking() -> None:
    device, lease = leased_device()
    assert (lease.source, lease.arrivals, lease.rows, lease.times.solo_ns) == (1, STREAK, 1, 10 * MS)
    assert lease.times.bound_ns >= lease.times.predicted_ns > 0
    for batch in (-1, -2, -3):
        assert take(device, batch) == []
        assert device.core.device.running[(1, batch)].lane == lease.lane
        device.now_ms += 10.0
        assert device.core.handle(1, Finish(batch, 10 * MS), device.now_ns) == []  # as the lease has it
    device.core.check_invariants()


def test_a_lease_is_renewed_once_its_times_are_wrong_by_2_percent() -> None:
    """The predictor comes to what batches take by and by."""
    device, lease = leased_device()
    batch = 0
    for took_ms, renewals in ((10.1, 0), (10.35, 1), (10.45, 0)):
        leases = list[Command]()
        for _ in range(100):
            batch -= 1
            take(device, batch)
            device.now_ms += took_ms
            leases += device.core.handle(1, Finish(batch, round(took_ms * MS)), device.now_ns)
            device.core.learn()
        assert len(leases) == renewals
        for renewed in leases:
            assert isinstance(renewed, Lease)
            assert renewed.lane == lease.lane
            assert renewed.times.predicted_ns == pytest.approx(10.2 * MS, rel=0.001)
    device.core.check_invariants()


def test_others_find_a_lane_at_once_and_the_lease_is_asked_back_once() -> None:
    device, lease = leased_device()
    launch, recall = device.ask(2)
    assert only_launch([launch]).lane != lease.lane
    assert recall == Recall(1, lease.lease)
    assert device.ask(2) == []  # that lane is still the holder's
    (second,) = device.core.handle(1, Return(lease.lease), device.now_ns)
    assert only_launch([second]).lane == lease.lane
    device.core.check_invariants()


def test_a_lease_that_was_used_meanwhile_is_returned_later() -> None:
    device, lease = leased_device()
    device.ask(2)
    take(device, -1)
    assert len(device.core.device.running) == 2
    device.core.handle(1, Return(lease.lease), device.now_ns)
    device.core.check_invariants()
    assert device.ask(2) == []  # both lanes are taken


def test_a_lease_that_was_asked_back_can_be_had_and_asked_back_again() -> None:
    device, first = leased_device()
    launch, _ = device.ask(2)
    device.core.handle(1, Return(first.lease), device.now_ns)
    device.now_ms += 10.0
    device.finish(only_launch([launch]), 10.0)
    second = leased(device)
    assert second.lease > first.lease
    assert device.ask(2)[1:] == [Recall(1, second.lease)]


def test_a_return_of_another_lease_ends_none() -> None:
    device, lease = leased_device()
    with pytest.raises(ProtocolError, match="which it has not"):
        device.core.handle(1, Return(lease.lease - 1), device.now_ns)
    assert take(device, -1) == []


def test_asking_gives_the_lease_up() -> None:
    device, lease = leased_device()
    assert only_launch(device.ask(1)).lane == lease.lane
    with pytest.raises(ProtocolError, match="has no lease"):
        take(device, -1)
    with pytest.raises(ProtocolError, match="which it has not"):
        device.core.handle(1, Return(lease.lease), device.now_ns)


@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (-1, 2)])
def test_a_lease_is_for_one_kind_of_batch(batch: int, rows: int) -> None:
    device, _ = leased_device()
    with pytest.raises(ProtocolError, match="lease"):
        take(device, batch, rows)


def test_the_lease_ends_with_its_holder() -> None:
    device, lease = leased_device()
    device.core.leave(1, device.now_ns)
    assert {only_launch(device.ask(2)).lane, only_launch(device.ask(2)).lane} == {0, 1}
    assert lease.lane in (0, 1)


def test_on_a_single_lane_every_launch_is_asked_for() -> None:
    device = Device(lanes=1)
    device.join(1, join(profile()))
    for _ in range(STREAK + 2):
        launch = only_launch(device.ask(1))
        device.now_ms += 10.0
        assert device.finish(launch, 10.0) == []
