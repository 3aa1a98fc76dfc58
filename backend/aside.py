"""Executing a batch on a CPU core after whatever else wants that core: the one thing that a lane's thread does so.

A thread that goes after others may wait for as long as a batch of another model takes. Were it to hold Python's lock
meanwhile, its whole process would wait: nothing handed in, nothing answered. So it steps aside just for the execution,
which holds no lock. The kernel lets a thread come back where its process has CAP_SYS_NICE, or an RLIMIT_NICE of 20;
elsewhere it stays aside.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import AbstractContextManager
from functools import cache

_log = logging.getLogger("isochrone")
_NICENESS, _NICENESS_MAX = 10, 19
"""What hands requests in and answers out shares the core, needs it for microseconds, and would else wait for the rest
of a time slice at each of the several steps of an answer."""


class Aside(AbstractContextManager[None]):
    """Of the thread that makes it: within the context it goes after threads of ordinary rank.

    behind: it runs only while nothing else wants its core, not even what has stepped aside otherwise.
    """

    def __init__(self, *, behind: bool) -> None:
        self._thread = threading.get_native_id()
        self._idles, self._policy = behind, (os.sched_getscheduler(0), os.sched_getparam(0))
        self._niceness = os.getpriority(os.PRIO_PROCESS, self._thread)
        self._aside = max(self._niceness, _NICENESS_MAX if behind else _NICENESS)
        try:
            self._leave()
        except OSError:  # some containers forbid another policy: niceness alone leaves what is behind some 12 %
            self._idles = False
            self._leave()
        self.comes_back = True
        try:
            self._return()
        except OSError:
            self.comes_back = False
            _warn()

    def __enter__(self) -> None:
        if self.comes_back:
            self._leave()

    def __exit__(self, *_: object) -> None:
        if self.comes_back:
            self._return()

    def _leave(self) -> None:
        if self._idles:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.setpriority(os.PRIO_PROCESS, self._thread, self._aside)

    def _return(self) -> None:
        if self._idles:
            os.sched_setscheduler(0, *self._policy)
        else:
            os.setpriority(os.PRIO_PROCESS, self._thread, self._niceness)


@cache
def _warn() -> None:
    """Once per process."""
    _log.warning(
        "isochrone: threads of this process that give way to others may not come back, so it can stand still while "
        "another model's batch runs; give the server CAP_SYS_NICE or an RLIMIT_NICE of 40 (docker run --ulimit nice=40)"
    )
