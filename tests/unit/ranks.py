"""What the kernel lets a thread go before."""

from __future__ import annotations

import os
import threading


def rank() -> tuple[int, int]:
    """The calling thread's scheduling policy and niceness."""
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
