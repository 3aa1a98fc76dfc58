"""Running a thread as soon as it has something to do, also where every core executes a batch.

What hands requests in, decides launches and carries them out needs a core for microseconds. Woken like any other thread
it may wait there for the rest of another's time slice, some milliseconds, in which the lane that it is about to fill
idles. It is nice, as little as can be, not real-time: a real-time thread wakes on the core that it ran on last, and
would stop the batch there though another core idles.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

_NICENESS = -20
_AUTOGROUP = Path("/proc/self/autogroup")


def go_ahead() -> bool:
    """From now on the calling thread, but none that it starts, goes before threads of ordinary rank.

    False where it does not: the kernel allows it with CAP_SYS_NICE, or an RLIMIT_NICE of 40. A real-time thread stays
    one, and a thread of lower policy than the ordinary one keeps that.
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


def lead_session() -> bool:
    """`go_ahead`, for a process with a session of its own: Linux may weigh those as wholes first ("autogroups")."""
    if not go_ahead():
        return False
    with suppress(OSError):  # a kernel without them
        _AUTOGROUP.write_text(str(_NICENESS))
    return True
