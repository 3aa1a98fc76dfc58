"""Running a thread as soon as it has something to do, also on a core that executes a batch.

What decides launches and what carries them out need a core for microseconds. Woken like any other thread they would
wait there for the rest of a batch's time slice, some milliseconds, in which the lane that they are about to fill idles.
"""

from __future__ import annotations

import os


def go_ahead() -> bool:
    """From now on the calling thread, but none that it starts, goes before threads of ordinary rank.

    False where it does not: the kernel allows it with CAP_SYS_NICE, or an RLIMIT_RTPRIO of 1. One that has another
    than the ordinary policy keeps it, be it a lower one.
    """
    if (policy := os.sched_getscheduler(0)) != os.SCHED_OTHER:
        return policy not in (os.SCHED_BATCH, os.SCHED_IDLE)
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:
        return False
    return True
