"""What the kernel lets a thread go before, and whether it lets it."""

from __future__ import annotations

import os
import re
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def rank() -> tuple[int, int]:
    """The calling thread's scheduling policy and niceness."""
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def on_a_thread(call: Callable[[], T]) -> T:
    """What comes of it on a thread of its own, whose rank ends with it."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def has_sys_nice() -> bool:
    """Whether this process has CAP_SYS_NICE."""
    (effective,) = re.findall(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    return bool(int(effective, 16) >> 23 & 1)


def may_go_ahead() -> bool:
    """Whether its threads may be as little nice as can be."""
    return has_sys_nice() or not 0 <= resource.getrlimit(resource.RLIMIT_NICE)[0] < 40
