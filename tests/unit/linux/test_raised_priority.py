"""A thread that goes before others where the kernel allows it; what it starts does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.linux.raised_priority import go_ahead
from tests.fakes.ranks import T, may_go_ahead, on_a_thread, rank

FIRST = (os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, -20)
LED = (
    "from backend.linux.raised_priority import lead_session; print(lead_session(), open('/proc/self/autogroup').read())"
)


def after_going_ahead(then: Callable[[], T]) -> tuple[bool, T]:
    return on_a_thread(lambda: (go_ahead(), then()))


def forbid(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def forbid_negative(_which: int, _who: int, niceness: int) -> None:
    if niceness < 0:
        forbid()


def test_the_thread_goes_first() -> None:
    went, found = after_going_ahead(rank)
    assert found == (FIRST if went else rank())
    assert went or not may_go_ahead(), "this process may"


def test_a_thread_that_it_starts_does_not() -> None:
    assert after_going_ahead(lambda: on_a_thread(rank))[1] == rank()


def test_it_goes_ahead_but_once() -> None:
    went, (again, found) = after_going_ahead(lambda: (go_ahead(), rank()))
    assert again == went
    assert found == (FIRST if went else rank())


def test_where_the_kernel_forbids_it_all_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setpriority", forbid_negative)
    assert after_going_ahead(rank) == (False, rank())


def test_where_the_kernel_forbids_half_of_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", forbid)
    assert after_going_ahead(rank) == (False, rank())


@pytest.mark.parametrize("policy", [os.SCHED_IDLE, os.SCHED_BATCH])
def test_a_lower_policy_is_kept_and_what_it_is_worth_said(policy: int) -> None:
    def lower() -> tuple[bool, tuple[int, int]]:
        os.sched_setscheduler(0, policy, os.sched_param(0))
        return go_ahead(), rank()

    assert on_a_thread(lower) == (False, (policy, rank()[1]))


def test_a_real_time_thread_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_RR)  # few containers allow a real one
    monkeypatch.setattr(os, "setpriority", forbid)
    monkeypatch.setattr(os, "sched_setscheduler", forbid)
    assert on_a_thread(go_ahead)


def test_a_session_of_its_own_goes_first_as_a_whole() -> None:
    if not Path("/proc/self/autogroup").exists():
        pytest.skip("this kernel has no autogroups")
    command = [sys.executable, "-c", LED]
    said = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=True).stdout
    assert said.startswith("True") == may_go_ahead()
    assert ("nice -20" in said) == may_go_ahead()
