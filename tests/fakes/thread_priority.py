"""Priorities of threads, and what the kernel allows this process to change of them."""

from __future__ import annotations

import os
import re
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


def policy_and_niceness() -> tuple[int, int]:
    """Scheduling policy and niceness of the calling thread."""
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def on_a_thread(call: Callable[[], T]) -> T:
    """Result of the call on a thread of its own, whose priority ends with it."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def has_sys_nice() -> bool:
    """True where this process has CAP_SYS_NICE."""
    (effective,) = re.findall(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    return bool(int(effective, 16) >> 23 & 1)


def may_raise_priority() -> bool:
    """True where this process may raise the priority of its threads."""
    return has_sys_nice() or not 0 <= resource.getrlimit(resource.RLIMIT_NICE)[0] < 40


def limit_priorities(
    monkeypatch: pytest.MonkeyPatch, *, policies: Callable[[int], bool], niceness: Callable[[int], bool]
) -> None:
    """Let the kernel forbid all other policies and niceness values."""
    monkeypatch.setattr(os, "sched_setscheduler", _allowing(policies, os.sched_setscheduler, 1))
    monkeypatch.setattr(os, "setpriority", _allowing(niceness, os.setpriority, 2))


def _allowing(allowed: Callable[[int], bool], call: Callable[..., None], at: int) -> Callable[..., None]:
    def limited(*args: int) -> None:
        if not allowed(args[at]):
            raise PermissionError(1, "Operation not permitted")
        call(*args)

    return limited
