"""A lane's thread goes after others while it executes a batch; where the kernel lets it come back, only then."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from backend.linux.low_priority import Aside, _warn
from tests.fakes.ranks import has_sys_nice, on_a_thread, rank

Rank = tuple[int, int]
AFTER, LAST = (os.SCHED_OTHER, 10), (os.SCHED_OTHER, 19)
IDLE = (os.SCHED_IDLE, rank()[1])


def ranks(behind: bool) -> tuple[bool, Rank, Rank, Rank]:
    """On a thread of its own: whether it comes back; before, during and after an execution."""

    def run() -> tuple[bool, Rank, Rank, Rank]:
        aside = Aside(behind=behind)
        before = rank()
        with aside:
            during = rank()
        return aside.comes_back, before, during, rank()

    return on_a_thread(run)


def allowing(allowed: Callable[[int], bool], call: Callable[..., None], at: int) -> Callable[..., None]:
    """The call where its argument at this place is allowed, else what the kernel says."""

    def limited(*args: int) -> None:
        if not allowed(args[at]):
            raise PermissionError(1, "Operation not permitted")
        call(*args)

    return limited


def limit(monkeypatch: pytest.MonkeyPatch, *, policies: Callable[[int], bool], niceness: Callable[[int], bool]) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", allowing(policies, os.sched_setscheduler, 1))
    monkeypatch.setattr(os, "setpriority", allowing(niceness, os.setpriority, 2))


@pytest.mark.parametrize(("behind", "aside"), [(False, AFTER), (True, IDLE)])
def test_it_steps_aside_for_the_execution_alone(behind: bool, aside: Rank) -> None:
    if not has_sys_nice():
        pytest.skip("this process lacks CAP_SYS_NICE")
    assert ranks(behind) == (True, rank(), aside, rank())


@pytest.mark.parametrize(("behind", "aside"), [(False, AFTER), (True, IDLE)])
def test_where_nobody_may_come_back_it_stays_aside_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, behind: bool, aside: Rank
) -> None:
    _warn.cache_clear()
    limit(monkeypatch, policies=lambda policy: policy == os.SCHED_IDLE, niceness=lambda value: value > 0)
    assert [ranks(behind), ranks(behind)] == [(False, aside, aside, aside)] * 2
    (said,) = caplog.messages
    assert "RLIMIT_NICE of 40" in said


@pytest.mark.parametrize(("behind", "aside"), [(False, AFTER), (True, LAST)])
def test_where_policies_are_fixed_it_is_as_nice_as_can_be(
    monkeypatch: pytest.MonkeyPatch, behind: bool, aside: Rank
) -> None:
    limit(monkeypatch, policies=lambda _: False, niceness=lambda value: value > 0)
    assert ranks(behind) == (False, aside, aside, aside)
