"""Processes that a load starts: lowered with it, and ordinary again when it takes long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.linux.loading_priority import LoadingPriority, may_restore
from tests.fakes.fake_model import eventually
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


def test_a_session_is_lowered_alone_and_grows_with_the_load() -> None:
    """Where the kernel gives a session its autogroup; else nothing is there to be lowered."""
    loading = LoadingPriority(grows_s=3600.0)
    lower = "from backend.linux.loading_priority import lower_session as f; f(); print(flush=True); input()"

    def found() -> tuple[str, str]:
        own = niceness(os.getpid())
        with (
            loading,
            subprocess.Popen(
                [sys.executable, "-c", lower],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            ) as child,
        ):
            assert child.stdout is not None
            child.stdout.readline()
            lowered = niceness(child.pid)
            loading._grow()
            grown = niceness(child.pid)
            child.kill()
        assert niceness(os.getpid()) == own
        return lowered, grown

    assert on_a_thread(found) in [("19", "0"), ("", "")]


def test_a_session_of_a_load_that_is_not_low_is_left_alone() -> None:
    """None would make it grow."""
    lower = "from backend.linux.loading_priority import lower_session as f; f(); print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", lower], stdin=pipe, stdout=pipe, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = niceness(child.pid)
        child.kill()
    assert found in ("0", "")


def niceness(process: int) -> str:
    """Niceness of a process's session, "" without an autogroup: no such file, or one that is empty."""
    try:
        shown = Path(f"/proc/{process}/autogroup").read_text()
    except OSError:
        return ""
    return shown.rpartition(" ")[2].strip()


def test_a_process_that_is_started_later_is_ordinary() -> None:
    def found() -> int:
        with LoadingPriority(grows_s=0.01):
            eventually(lambda: os.sched_getscheduler(0) == os.SCHED_OTHER)
            with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
                policy = os.sched_getscheduler(child.pid)
                child.kill()
        return policy

    assert on_a_thread(found) == os.SCHED_OTHER
