"""A model on several devices as one queue: nothing is lost, and each request is on exactly one device."""

from __future__ import annotations

import time
from queue import SimpleQueue
from typing import Any

import pytest

from backend.model_process.devices.forecast import STALE_NS, DeviceForecast
from backend.model_process.devices.group import DeviceGroup, Member
from backend.model_process.request import Pending
from backend.scheduler.messages import DeviceLoad
from tests.fakes.fake_model import pending

MS = 1_000_000


class FakeDispatcher:
    """Keeps what it is given. starts_ms: what its scheduler tells when asked, None: nothing."""

    def __init__(self, solo_ms: float, starts_ms: float | None = 0.0) -> None:
        self.solo_ns, self.starts_ms = ((1, round(solo_ms * MS)),), starts_ms
        self.loads: SimpleQueue[DeviceLoad] = SimpleQueue()
        self.waiting: list[Pending] = []
        self.asked: list[tuple[int, int]] = []
        self.connected, self.away = True, False
        self.fault: Exception | None = None

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def under_way(self) -> int:
        return len(self.waiting)

    def ask(self, asks: int, priority: int) -> bool:
        self.asked.append((asks, priority))
        if self.starts_ms is not None:
            # As of a time that is yet to come, so that nothing of it has passed at the test's checks.
            self.loads.put(DeviceLoad(asks, 1 << 62, round(self.starts_ms * MS), self.solo_ns, 1.0))
        return True

    def submit(self, requests: list[Pending]) -> None:
        if self.fault is not None:
            raise self.fault
        self.waiting += requests

    def cancel(self, request: Pending) -> bool:
        if request not in self.waiting:
            return False
        self.waiting.remove(request)
        return True

    def waiting_since(self, before_ns: int, after: int, limit: int) -> list[Pending]:
        return [r for r in self.waiting if r.id > after and r.arrival_ns < before_ns][:limit]

    def close(self) -> list[Pending]:
        left, self.waiting = self.waiting, []
        return left


def group(*dispatchers: FakeDispatcher, turns: int = 0) -> DeviceGroup:
    members: list[Any] = [
        Member(d, DeviceForecast(d.solo_ns, 1), lambda d=d: d.away)  # type: ignore[arg-type,misc]
        for d in dispatchers
    ]
    return DeviceGroup(members, turns)


def counts(*dispatchers: FakeDispatcher) -> list[int]:
    return [len(dispatcher) for dispatcher in dispatchers]


def test_requests_of_one_call_are_spread_by_where_they_end_first() -> None:
    fast, slow = FakeDispatcher(10.0), FakeDispatcher(40.0)
    requests = [pending() for _ in range(10)]
    group(fast, slow).submit(requests)
    assert counts(fast, slow) == [8, 2]
    assert sorted(fast.waiting + slow.waiting, key=lambda r: r.id) == requests


def test_what_others_run_on_a_device_counts() -> None:
    fast, slow = FakeDispatcher(10.0, starts_ms=100.0), FakeDispatcher(40.0)
    group(fast, slow).submit([pending()])
    assert counts(fast, slow) == [0, 1]


def test_devices_are_asked_for_the_class_of_the_request() -> None:
    one = FakeDispatcher(10.0)
    request = pending()
    request.priority = 3
    group(one, FakeDispatcher(10.0)).submit([request])
    assert one.asked == [(1, 3)]


@pytest.mark.parametrize("how", ["scheduler", "engine"])
def test_a_device_that_is_gone_is_chosen_only_where_no_other_is_left(how: str) -> None:
    fast, slow = FakeDispatcher(10.0), FakeDispatcher(40.0)
    both = group(fast, slow)

    def lose(dispatcher: FakeDispatcher) -> None:
        if how == "scheduler":
            dispatcher.connected = False
        else:
            dispatcher.away = True

    lose(fast)
    both.submit([pending() for _ in range(10)])
    assert counts(fast, slow) == [0, 10]
    lose(slow)
    both.submit([pending()])
    assert counts(fast, slow) == [1, 10]


def test_without_any_scheduler_requests_are_spread_by_what_this_model_has_there() -> None:
    fast, slow = FakeDispatcher(10.0), FakeDispatcher(25.0)
    fast.connected = slow.connected = False
    both = group(fast, slow)
    for _ in range(7):
        both.submit([pending()])
    assert counts(fast, slow) == [5, 2]
    assert fast.asked == slow.asked == []


def test_a_scheduler_that_does_not_answer_holds_up_little() -> None:
    silent, slow = FakeDispatcher(10.0, None), FakeDispatcher(40.0)
    both = group(silent, slow)
    for _ in range(10):
        both.submit([pending()])
    before = counts(silent, slow)
    time.sleep(1.1 * STALE_NS / 1e9)
    for _ in range(10):
        both.submit([pending()])
    assert counts(silent, slow) == [before[0], before[1] + 10]


def test_warming_up_goes_by_turns() -> None:
    fast, slow = FakeDispatcher(10.0), FakeDispatcher(1000.0)
    both = group(fast, slow, turns=2)
    both.submit([pending(), pending()])
    both.submit([pending()])
    assert counts(fast, slow) == [2, 1]
    both.submit([pending(), pending()])
    assert counts(fast, slow) == [4, 1]


def test_a_request_is_cancelled_where_it_waits_and_nowhere_else() -> None:
    one, two = FakeDispatcher(10.0), FakeDispatcher(10.0)
    both, requests = group(one, two), [pending() for _ in range(4)]
    both.submit(requests)
    assert counts(one, two) == [2, 2]
    assert len(both) == 4
    assert both.cancel(requests[1])
    assert not both.cancel(requests[1])
    assert counts(one, two) == [2, 1]
    assert len(both) == 3


def test_old_requests_are_found_over_all_devices_in_their_order() -> None:
    one, two = FakeDispatcher(10.0), FakeDispatcher(10.0)
    both, requests = group(one, two), [pending() for _ in range(6)]
    both.submit(requests)
    before_ns = requests[-1].arrival_ns + 1
    assert both.waiting_since(before_ns, 0, 4) == requests[:4]
    assert both.waiting_since(before_ns, requests[3].id, 4) == requests[4:]


def test_closing_returns_what_waits_on_every_device() -> None:
    both, requests = group(FakeDispatcher(10.0), FakeDispatcher(10.0)), [pending() for _ in range(5)]
    both.submit(requests)
    assert sorted(both.close(), key=lambda r: r.id) == requests


def test_a_queue_that_raises_leaves_what_can_be_cancelled() -> None:
    one, two = FakeDispatcher(10.0), FakeDispatcher(10.0)
    both, requests = group(one, two), [pending() for _ in range(4)]
    two.fault = OSError("no socket")
    with pytest.raises(OSError, match="no socket"):
        both.submit(requests)
    assert [both.cancel(request) for request in requests].count(True) == 2
    assert len(both) == 0
