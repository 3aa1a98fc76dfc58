"""Processes that a load starts: lowered with it, and ordinary again when it takes long."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from backend.linux.loading_priority import LoadingPriority, may_restore
from profiler.child import answer_of
from profiler.session_priority import SESSION_LOW, renice_session
from tests.fakes.fake_model import eventually
from tests.fakes.own_session import niceness
from tests.fakes.thread_priority import on_a_thread

pytestmark = pytest.mark.skipif(not may_restore(), reason="the kernel lets no thread come back")


def test_a_process_that_a_load_starts_is_lowered_and_grows_with_it() -> None:
    loading = LoadingPriority(grows_s=3600.0)

    def found() -> tuple[int, int, int]:
        with loading, subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            lowered = os.sched_getscheduler(child.pid)
            loading._grow()
            grown = os.sched_getscheduler(child.pid)
            child.kill()
        return lowered, grown, os.sched_getscheduler(0)

    assert on_a_thread(found) == (os.SCHED_IDLE, os.SCHED_OTHER, os.SCHED_OTHER)


def test_a_session_of_its_own_is_lowered_alone_and_grows_with_the_load() -> None:
    """Where the kernel gives a session its autogroup; else nothing is there to be lowered."""
    loading = LoadingPriority(grows_s=3600.0)

    def found() -> tuple[str, str]:
        own = niceness(os.getpid())
        with loading:
            lowered = niceness_of_a_child()
            with subprocess.Popen(
                [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
            ) as child:
                renice_session(child.pid, SESSION_LOW)
                loading._grow()
                grown = niceness(child.pid)
                child.kill()
        assert niceness(os.getpid()) == own
        return lowered, grown

    assert on_a_thread(found) in [("19", "0"), ("", "")]


def test_a_session_of_a_caller_that_is_not_low_is_left_alone() -> None:
    """None would make it grow."""
    assert niceness_of_a_child() in ("0", "")


def niceness_of_a_child() -> str:
    """Niceness of the session of a module that was run in its own."""
    found = answer_of("tests.fakes.own_session", [], str, timeout_s=30.0, own_session=True)
    assert isinstance(found, str)
    return found


def test_a_process_that_is_started_later_is_ordinary() -> None:
    def found() -> int:
        with LoadingPriority(grows_s=0.01):
            eventually(lambda: os.sched_getscheduler(0) == os.SCHED_OTHER)
            with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
                policy = os.sched_getscheduler(child.pid)
                child.kill()
        return policy

    assert on_a_thread(found) == os.SCHED_OTHER
