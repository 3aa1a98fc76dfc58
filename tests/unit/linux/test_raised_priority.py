"""raise_priority raises the calling thread where the kernel allows it, and none that it starts."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from backend.linux.raised_priority import raise_priority
from tests.fakes.thread_priority import T, may_raise_priority, on_a_thread, policy_and_niceness

RAISED = (os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, -20)


def with_raised_priority(then: Callable[[], T]) -> tuple[bool, T]:
    return on_a_thread(lambda: (raise_priority(), then()))


def forbid(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def forbid_negative(_which: int, _who: int, niceness: int) -> None:
    if niceness < 0:
        forbid()


def test_the_calling_thread_is_raised() -> None:
    raised, found = with_raised_priority(policy_and_niceness)
    assert found == (RAISED if raised else policy_and_niceness())
    assert raised or not may_raise_priority(), "this process may"


def test_a_thread_that_it_starts_is_not_raised() -> None:
    assert with_raised_priority(lambda: on_a_thread(policy_and_niceness))[1] == policy_and_niceness()


def test_raising_twice_is_raising_once() -> None:
    raised, (again, found) = with_raised_priority(lambda: (raise_priority(), policy_and_niceness()))
    assert again == raised
    assert found == (RAISED if raised else policy_and_niceness())


def test_a_thread_that_may_not_be_raised_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setpriority", forbid_negative)
    assert with_raised_priority(policy_and_niceness) == (False, policy_and_niceness())


def test_a_thread_that_may_not_change_its_policy_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", forbid)
    assert with_raised_priority(policy_and_niceness) == (False, policy_and_niceness())


@pytest.mark.parametrize("policy", [os.SCHED_IDLE, os.SCHED_BATCH])
def test_a_thread_of_lower_policy_keeps_it_and_is_not_raised(policy: int) -> None:
    def lower() -> tuple[bool, tuple[int, int]]:
        os.sched_setscheduler(0, policy, os.sched_param(0))
        return raise_priority(), policy_and_niceness()

    assert on_a_thread(lower) == (False, (policy, policy_and_niceness()[1]))


def test_a_real_time_thread_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_RR)  # few containers allow a real one
    monkeypatch.setattr(os, "setpriority", forbid)
    monkeypatch.setattr(os, "sched_setscheduler", forbid)
    assert on_a_thread(raise_priority)
