"""A thread that goes before others where the kernel allows it; what it starts does not."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from backend.ahead import go_ahead
from tests.unit.ranks import T, may_go_ahead, on_a_thread

FIRST = os.SCHED_RR | os.SCHED_RESET_ON_FORK


def after_going_ahead(then: Callable[[], T]) -> tuple[bool, T]:
    return on_a_thread(lambda: (go_ahead(), then()))


def policy() -> int:
    return os.sched_getscheduler(0)


def test_the_thread_goes_first() -> None:
    went, found = after_going_ahead(policy)
    assert found == (FIRST if went else os.SCHED_OTHER)
    assert went or not may_go_ahead(), "this process may"


def test_a_thread_that_it_starts_does_not() -> None:
    assert after_going_ahead(lambda: on_a_thread(policy))[1] == os.SCHED_OTHER


def test_where_the_kernel_forbids_it_all_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbid)
    assert after_going_ahead(policy) == (False, os.SCHED_OTHER)


def test_another_policy_is_kept_and_what_it_is_worth_said() -> None:
    def idling() -> tuple[bool, int]:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        return go_ahead(), policy()

    assert on_a_thread(idling) == (False, os.SCHED_IDLE)
