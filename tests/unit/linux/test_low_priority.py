"""LowPriority lowers its thread while a batch executes and restores it after, where the kernel allows that."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from backend.linux.cpu_topology import cores
from backend.linux.low_priority import LowPriority, _warn_once
from backend.linux.starvation import Boost
from tests.fakes.thread_priority import has_sys_nice, limit_priorities, on_a_thread, policy_and_niceness

Priority = tuple[int, int]
LOW, LOWEST = (os.SCHED_OTHER, 10), (os.SCHED_OTHER, 19)
IDLE = (os.SCHED_IDLE, policy_and_niceness()[1])
CORE = cores()[0]
needs_sys_nice = pytest.mark.skipif(not has_sys_nice(), reason="this process lacks CAP_SYS_NICE")
needs_two_cores = pytest.mark.skipif(len(cores()) < 2, reason="there is no other core")


def priorities(preemptible: bool) -> tuple[bool, Priority, Priority, Priority]:
    """Whether it can be restored; the thread's priority before, during and after an execution."""

    def run() -> tuple[bool, Priority, Priority, Priority]:
        low = LowPriority(preemptible=preemptible)
        before = policy_and_niceness()
        with low:
            during = policy_and_niceness()
        return low.can_restore, before, during, policy_and_niceness()

    return on_a_thread(run)


@needs_sys_nice
@pytest.mark.parametrize(("preemptible", "low"), [(False, LOW), (True, IDLE)])
def test_the_priority_is_low_for_the_execution_only(preemptible: bool, low: Priority) -> None:
    assert priorities(preemptible) == (True, policy_and_niceness(), low, policy_and_niceness())


@pytest.mark.parametrize(("preemptible", "low"), [(False, LOW), (True, IDLE)])
def test_a_priority_that_cannot_be_restored_stays_low_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, preemptible: bool, low: Priority
) -> None:
    _warn_once.cache_clear()
    limit_priorities(monkeypatch, policies=lambda policy: policy == os.SCHED_IDLE, niceness=lambda value: value > 0)
    assert [priorities(preemptible), priorities(preemptible)] == [(False, low, low, low)] * 2
    (logged,) = caplog.messages
    assert "RLIMIT_NICE of 40" in logged


@pytest.mark.parametrize(("preemptible", "low"), [(False, LOW), (True, LOWEST)])
def test_where_policies_are_fixed_niceness_stands_in(
    monkeypatch: pytest.MonkeyPatch, preemptible: bool, low: Priority
) -> None:
    limit_priorities(monkeypatch, policies=lambda _: False, niceness=lambda value: value > 0)
    assert priorities(preemptible) == (False, low, low, low)


Found = tuple[bool, int]
"""Whether the thread is pinned, and its policy."""
NOT_BOOSTED, RAISED, MIGRATED = (True, os.SCHED_IDLE), (False, os.SCHED_OTHER), (False, os.SCHED_IDLE)


def now() -> Found:
    return os.sched_getaffinity(0) == {CORE}, policy_and_niceness()[0]


def on_a_lane(run: Callable[[LowPriority], list[Found]]) -> list[Found]:
    return on_a_thread(lambda: run(LowPriority(preemptible=True, core=CORE)))


def boosted(by: Boost) -> Callable[[LowPriority], list[Found]]:
    """In a boosted batch, after it, and in the next two; the boost is over before the second."""

    def run(low: LowPriority) -> list[Found]:
        with low:
            assert low.began_ns is not None
            assert not low.boost(by, low.began_ns - 1)  # another batch
            assert low.boost(by, low.began_ns)
            found = [now()]
        found.append(now())
        with low:
            found.append(now())
        low._until_ns = 0
        with low:
            found.append(now())
        return found

    return run


@needs_sys_nice
@needs_two_cores
def test_a_boost_lasts_for_a_while() -> None:
    assert on_a_lane(boosted(Boost.RAISE)) == [RAISED, RAISED, RAISED, NOT_BOOSTED]
    assert on_a_lane(boosted(Boost.MIGRATE)) == [MIGRATED, RAISED, MIGRATED, NOT_BOOSTED]


@needs_sys_nice
@needs_two_cores
def test_a_boosted_batch_is_suspended_like_any_other() -> None:
    def run(low: LowPriority) -> list[Found]:
        with low:
            low.boost(Boost.RAISE, low.began_ns or 0)
            low.suspend()
            found = [now()]
        low.suspended = False
        with low:
            return [*found, now()]

    assert on_a_lane(run) == [NOT_BOOSTED, NOT_BOOSTED]
