"""A load at the lowest priority: where the kernel lets the thread come back, and not for ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

import backend.linux.loading_priority as loading_module
from backend.linux.loading_priority import LoadingPriority
from tests.fakes.fake_model import eventually
from tests.fakes.thread_priority import limit_priorities, on_a_thread, policy_and_niceness

pytestmark = pytest.mark.skipif(not loading_module.may_restore(), reason="the kernel lets no thread come back")


def test_the_thread_is_idle_within_and_ordinary_after() -> None:
    def found() -> tuple[int, int]:
        with LoadingPriority():
            within = os.sched_getscheduler(0)
        return within, os.sched_getscheduler(0)

    assert on_a_thread(found) == (os.SCHED_IDLE, os.SCHED_OTHER)


def test_lowering_and_restoring_twice_is_once() -> None:
    loading = LoadingPriority()

    def found() -> list[int]:
        policies = []
        for call in (loading.lower, loading.lower, loading.restore, loading.restore):
            call()
            policies.append(os.sched_getscheduler(0))
        return policies

    assert on_a_thread(found) == [os.SCHED_IDLE, os.SCHED_IDLE, os.SCHED_OTHER, os.SCHED_OTHER]


def test_threads_that_were_started_within_are_ordinary_after() -> None:
    may_end = threading.Event()
    policies: list[int] = []

    def found() -> None:
        with LoadingPriority():
            thread = threading.Thread(target=may_end.wait)
            thread.start()
            assert thread.native_id is not None
            policies.append(os.sched_getscheduler(thread.native_id))
        policies.append(os.sched_getscheduler(thread.native_id))
        may_end.set()
        thread.join()

    on_a_thread(found)
    assert policies == [os.SCHED_IDLE, os.SCHED_OTHER]


def test_a_thread_that_could_not_come_back_is_not_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_priorities(monkeypatch, policies=lambda policy: policy == os.SCHED_IDLE, niceness=lambda _: True)

    def found() -> tuple[int, int]:
        with LoadingPriority():
            return policy_and_niceness()

    assert on_a_thread(found) == policy_and_niceness()


def test_a_load_that_takes_long_goes_on_as_ordinary(caplog: pytest.LogCaptureFixture) -> None:
    def found() -> int:
        with LoadingPriority(grows_s=0.01):
            eventually(lambda: os.sched_getscheduler(0) == os.SCHED_OTHER)
        return os.sched_getscheduler(0)

    assert on_a_thread(found) == os.SCHED_OTHER
    assert "a model's load is not over after 0.01 s at the lowest priority" in caplog.text


def test_a_load_that_ended_does_not_grow(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    loading = LoadingPriority(grows_s=3600.0)
    on_a_thread(lambda: _within(loading, lambda: None))
    monkeypatch.setattr(loading_module, "_make_ordinary", None)
    loading._grow()
    assert caplog.text == ""


def _within(loading: LoadingPriority, call: Callable[[], None]) -> None:
    with loading:
        call()
