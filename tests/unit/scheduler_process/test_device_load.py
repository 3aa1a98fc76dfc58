"""What a model's process is told of a device that asks where to send a request."""

from __future__ import annotations

import pytest

from backend.scheduler.messages import DeviceLoad, Ping
from backend.scheduler_process.device_snapshot import DeviceDescription, start_ns
from tests.fakes.builders import MS, Device, join, profile


def load_of(device: Device, source: int, priority: int = 1) -> DeviceLoad:
    description = DeviceDescription("gpu-0", "me")
    return description.load(device.core, device.core.sources[source], Ping(7, priority), device.now_ns)


@pytest.mark.parametrize(
    ("remaining", "waiting", "lanes", "starts"),
    [
        ([], 0, 2, 0),
        ([10], 0, 2, 0),
        ([10, 4], 0, 2, 4),
        ([10], 6, 2, 6),
        ([10, 4], 2, 2, 6),
        ([10, 4], 8, 2, 11),
        ([10], 5, 1, 15),
        ([10, 4, 2], 0, 2, 6),  # one of three is suspended
        ([1, 2, 3], 30, 3, 12),
    ],
)
def test_a_lane_is_free_once_what_waits_was_spread(
    remaining: list[float], waiting: float, lanes: int, starts: float
) -> None:
    assert start_ns(remaining, waiting, lanes) == starts


def test_an_idle_device() -> None:
    device = Device(2)
    device.join(1, join(profile(10.0)))
    found = load_of(device, 1)
    assert (found.asks, found.at_ns, found.starts_ns, found.slowdown) == (7, device.now_ns, 0, 1.0)
    assert found.solo_ns[0] == (1, 10 * MS)


def test_what_other_models_run_and_have_waiting_counts() -> None:
    device = Device(1)
    device.join(1, join(profile(10.0), model="ours"))
    device.join(2, join(profile(20.0), model="other", max_batch_size=0))
    for _ in range(3):
        device.ask(2)
    device.at(5.0)
    assert load_of(device, 1).starts_ns == (15 + 20 + 20) * MS


def test_what_waits_in_lower_classes_does_not_count() -> None:
    device = Device(1)
    device.join(1, join(profile(10.0)))
    device.join(2, join(profile(20.0), model="other", max_batch_size=0))
    for _ in range(3):
        device.ask(2, priority=2)
    assert load_of(device, 1, priority=1).starts_ns == 20 * MS
    assert load_of(device, 1, priority=2).starts_ns == 60 * MS


def test_a_co_runner_slows_the_next_request_down() -> None:
    device = Device(2)
    device.join(1, join(profile(10.0)))
    device.join(2, join(profile(20.0, 1.0), model="other"))
    device.ask(2)
    found = load_of(device, 1)
    assert found.starts_ns == 0
    assert found.slowdown == pytest.approx(1.3)
