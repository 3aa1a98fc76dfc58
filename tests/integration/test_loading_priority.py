"""Processes that a load starts: lowered with it, and ordinary again when it takes long."""

from __future__ import annotations

import os
import subprocess
import sys

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


def test_what_is_started_while_it_is_suspended_is_ordinary() -> None:
    loading = LoadingPriority(grows_s=3600.0)

    def found() -> list[int]:
        policies = []
        for lowered in (False, True):
            if lowered:
                loading.lower()
            with loading.suspended():
                policies.append(os.sched_getscheduler(0))
            policies.append(os.sched_getscheduler(0))
        loading.restore()
        return policies

    assert on_a_thread(found) == [os.SCHED_OTHER] * 3 + [os.SCHED_IDLE]


def test_a_process_that_is_started_later_is_ordinary() -> None:
    def found() -> int:
        with LoadingPriority(grows_s=0.01):
            eventually(lambda: os.sched_getscheduler(0) == os.SCHED_OTHER)
            with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
                policy = os.sched_getscheduler(child.pid)
                child.kill()
        return policy

    assert on_a_thread(found) == os.SCHED_OTHER
