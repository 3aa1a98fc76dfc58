"""Raised CPU priority for threads that need a core for microseconds: they read requests, decide, launch, send answers.

Where every core executes a batch, such a thread may wait for the rest of another's time slice, some milliseconds, in
which the lane that it is about to fill idles. It gets the lowest niceness, not a real-time policy: a real-time thread
wakes on the core that it ran on last, and would stop the batch there though another core idles.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

_NICENESS = -20
_AUTOGROUP = Path("/proc/self/autogroup")


def raise_priority() -> bool:
    """Raise the calling thread above threads of ordinary priority, for good; threads that it starts stay ordinary.

    False where the kernel forbids it: it takes CAP_SYS_NICE, or an RLIMIT_NICE of 40. A thread with a real-time policy,
    or one below the ordinary, keeps that.
    """
    if (policy := os.sched_getscheduler(0)) != os.SCHED_OTHER:
        return policy not in (os.SCHED_BATCH, os.SCHED_IDLE)
    thread = threading.get_native_id()
    niceness = os.getpriority(os.PRIO_PROCESS, thread)
    try:
        os.setpriority(os.PRIO_PROCESS, thread, _NICENESS)
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    except OSError:  # some containers allow but the former, which whatever this thread starts would inherit
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
        return False
    return True


def raise_session_priority() -> bool:
    """Raise the calling thread and its session, which must be this process's own: see `raise_priority`.

    Linux may weigh whole sessions first ("autogroups").
    """
    if not raise_priority():
        return False
    with suppress(OSError):  # a kernel without them
        _AUTOGROUP.write_text(str(_NICENESS))
    return True
