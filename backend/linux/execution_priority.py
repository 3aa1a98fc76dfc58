"""Priority and cores of the threads that execute a batch: a lane's own, and those that the engine adds to it."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, suppress


class IntraOpThreads:
    """Threads of an engine that execute a batch together with a lane's thread, each pinned to a core of its own.

    ids: the kernel's thread ids.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        self._own_cores = [os.sched_getaffinity(thread) for thread in ids]
        self._priority: tuple[int, int] | None = None
        self._cores: Collection[int] | None = None

    def match(self, thread: int, cores: Collection[int] | None) -> None:
        """Take over the scheduling policy and niceness of `thread`, as far as the kernel permits.

        cores: where they may run, None: each on its own core.
        """
        priority = policy, niceness = os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)
        if priority != self._priority:
            self._priority = priority
            for own in self.ids:
                with suppress(OSError):
                    os.sched_setscheduler(own, policy, os.sched_param(0))
                    os.setpriority(os.PRIO_PROCESS, own, niceness)
        if cores != self._cores:
            self._cores = cores
            for own, own_cores in zip(self.ids, self._own_cores, strict=True):
                with suppress(OSError):
                    os.sched_setaffinity(own, cores or own_cores)


class ExecutionPriority(AbstractContextManager[None]):
    """Context in which a lane's thread executes a batch and does nothing else. This one leaves priorities unchanged."""

    def __exit__(self, *raised: object) -> bool | None:
        """Restore the thread's priority."""

    def include(self, threads: IntraOpThreads) -> None:
        """Give these threads the calling thread's priority, too. Called while entered."""
        threads.match(threading.get_native_id(), None)


ORDINARY_PRIORITY = ExecutionPriority()
