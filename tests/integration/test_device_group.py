"""A model on two devices with their real schedulers: where its requests go, also while schedulers are killed."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from backend.model_process.devices.forecast import STALE_NS, DeviceForecast
from backend.model_process.devices.group import DeviceGroup, Member
from tests.fakes.fake_model import FakeModel, eventually, pending, signal_scheduler, until_connected

DEVICES = ("gpu-0", "gpu-1")
SOLO_NS = ((1, 1_000_000),)


def group(*models: FakeModel) -> DeviceGroup:
    return DeviceGroup([Member(m.dispatcher, DeviceForecast(SOLO_NS, 2), lambda: False) for m in models])


def until_told(both: DeviceGroup) -> None:
    """Wait until what is known of each device is as of now, however busy this machine is."""

    def told() -> bool:
        both._refresh(1)
        return not any(m.forecast.awaits or m.forecast.is_stale(time.monotonic_ns()) for m in both._members)

    time.sleep(1.2 * STALE_NS / 1e9)
    eventually(told)


def test_requests_go_where_no_other_model_keeps_the_lanes() -> None:
    with FakeModel("a", device=DEVICES[0]) as one, FakeModel("a", device=DEVICES[1]) as two:
        both = group(one, two)
        with FakeModel("other", device=DEVICES[0]) as other:
            other.fill()
            other.submit(*[pending() for _ in range(40)])
            requests = [pending() for _ in range(6)]
            for request in requests:
                until_told(both)
                both.submit([request])
            two.wait_for(*requests)
            assert not one.started
        two.fill()
        two.submit(*[pending() for _ in range(40)])
        until_told(both)
        request = pending()
        both.submit([request])
        one.wait_for(request)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_schedulers_lose_no_request(kills: int) -> None:
    with FakeModel("a", device=DEVICES[0]) as one, FakeModel("a", device=DEVICES[1]) as two:
        both, requests = group(one, two), []
        for kill in range(kills):
            for i in range(60):
                if i == 20:
                    signal_scheduler(signal.SIGKILL, DEVICES[kill % 2])
                requests.append(pending())
                both.submit([requests[-1]])
                time.sleep(0.001)
            until_connected(one, two)
        eventually(lambda: len(one.done) + len(two.done) == len(requests))
        ends = Counter(one.ends) + Counter(two.ends)
        assert ends == dict.fromkeys([request.id for request in requests], 1)


def test_a_device_without_scheduler_is_avoided_until_it_is_back() -> None:
    with FakeModel("a", device=DEVICES[0]) as one, FakeModel("a", device=DEVICES[1]) as two:
        both = group(one, two)
        one.dispatcher.lost()
        requests = [pending() for _ in range(10)]
        for request in requests:
            both.submit([request])
        two.wait_for(*requests)
        assert not one.started
        one.dispatcher.restored()
        both.submit([pending() for _ in range(20)])
        eventually(lambda: one.done)
