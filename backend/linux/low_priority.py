"""Executing a batch on a CPU core after whatever else wants that core: the one thing that a lane's thread does so.

A thread that goes after others may wait for as long as a batch of another model takes. Were it to hold Python's lock
meanwhile, its whole process would wait: nothing handed in, nothing answered. So it steps aside just for the execution,
which holds no lock. The kernel lets a thread come back where its process has CAP_SYS_NICE, or an RLIMIT_NICE of 20;
elsewhere it stays aside.

What the lanes give way to is known and short. A stranger that takes the core for good is neither: beside one, a thread
that has stepped aside stands still. So it may be helped (`Aside.help`), for the batch and for a while.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from functools import cache

from backend.linux.execution_priority import ExecutionPriority, IntraOpThreads
from backend.linux.starvation import Help

_log = logging.getLogger("isochrone")
_NICENESS, _NICENESS_MAX = 10, 19
"""What hands requests in and answers out shares the core, needs it for microseconds, and would else wait for the rest
of a time slice at each of the several steps of an answer."""
HELPED_NS, HELPED_NS_MAX = 1_000_000_000, 60_000_000_000
"""For so long a thread's batches are executed as the one that was helped; then its core is tried again, which costs a
batch its time if the stranger is still there: so twice as long after each try in vain. One that was to rise and cannot
is helped for the longest time at once, since another thread runs its batch as well then."""


class Aside(ExecutionPriority):
    """Of the thread that makes it: within the context it goes after threads of ordinary rank.

    behind: it runs only while nothing else wants its core, not even what has stepped aside otherwise. core: where it
    stays, None: where it may be now.
    """

    began_ns: int | None = None
    """When the batch that executes began to, or was suspended. cpu_ns: the thread's CPU time then."""
    cpu_ns = 0
    suspended = False
    """It stands still for another model's batch, as it should."""

    def __init__(self, *, behind: bool, core: int | None = None) -> None:
        self.thread = threading.get_native_id()
        self.intra_op_threads: IntraOpThreads | None = None
        self._changing = threading.Lock()
        self._everywhere = os.sched_getaffinity(0)
        self._core, self._pinned = core, False
        self._help, self._until_ns, self._lasts_ns = Help.NONE, 0, HELPED_NS
        self._idles, self._policy = behind, (os.sched_getscheduler(0), os.sched_getparam(0))
        self._niceness = os.getpriority(os.PRIO_PROCESS, self.thread)
        self._aside = max(self._niceness, _NICENESS_MAX if behind else _NICENESS)
        self._pin()
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
        with self._changing:
            now_ns = time.monotonic_ns()
            if now_ns >= self._until_ns:
                self._help = Help.NONE
                self._pin()
            self.cpu_ns = time.thread_time_ns()
            self.began_ns = now_ns
            if self._help < Help.RISE:
                self._leave_if_it_comes_back()

    def __exit__(self, *_: object) -> None:
        with self._changing:
            self.began_ns = None
            if self._help < Help.RISE and self.comes_back:
                self._return()

    def include(self, threads: IntraOpThreads) -> None:
        """See `ExecutionPriority.include`."""
        with self._changing:
            self.intra_op_threads = threads
            self._followed()

    def settle(self, core: int | None) -> None:
        """Between two batches: stay on another core from now on."""
        if core != self._core:
            with self._changing:
                self._core, self._pinned, self._until_ns = core, False, 0
                self._pin()
                if core is None:
                    self._may_use(self._everywhere)

    @property
    def helped(self) -> Help:
        """How it executes."""
        return self._help

    @property
    def stands_aside(self) -> bool:
        """Whether it was to rise and the kernel does not let it."""
        return self._help == Help.RISE and not self.comes_back and time.monotonic_ns() < self._until_ns

    def help(self, by: Help, began_ns: int) -> bool:
        """The batch that began then, and what comes within a while; False where it has ended. For another thread."""
        with self._changing:
            if self.began_ns != began_ns:
                return False
            rises = by == Help.RISE
            now_ns = time.monotonic_ns()
            in_vain = now_ns - self._until_ns < HELPED_NS
            self._lasts_ns = min(2 * self._lasts_ns, HELPED_NS_MAX) if in_vain else HELPED_NS
            lasts_ns = HELPED_NS_MAX if rises and not self.comes_back else self._lasts_ns
            self._help, self._until_ns = by, now_ns + lasts_ns
            if rises and self.comes_back:
                self._return()
            self._unpin()
            self._followed()
            return True

    def suspend(self) -> None:
        """Give way to what goes before it, helped or not: another model's batch. For another thread."""
        with self._changing:
            self.suspended, self._until_ns = True, 0
            if self.began_ns is None:
                return
            self.cpu_ns, self.began_ns = cpu_ns_of(self.thread), time.monotonic_ns()
            if self._help == Help.RISE:
                self._leave_if_it_comes_back()
            self._help = Help.NONE
            self._pin()
            self._followed()

    def _followed(self) -> None:
        if self.intra_op_threads is not None:
            cores = None if self._pinned or self._core is None else self._everywhere
            self.intra_op_threads.match(self.thread, cores)

    def _leave_if_it_comes_back(self) -> None:
        if self.comes_back:
            self._leave()

    def _leave(self) -> None:
        if self._idles:
            os.sched_setscheduler(self.thread, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.setpriority(os.PRIO_PROCESS, self.thread, self._aside)

    def _return(self) -> None:
        if self._idles:
            os.sched_setscheduler(self.thread, *self._policy)
        else:
            os.setpriority(os.PRIO_PROCESS, self.thread, self._niceness)

    def _pin(self) -> None:
        if not self._pinned and self._core is not None:
            self._pinned = True
            self._may_use({self._core})

    def _unpin(self) -> None:
        if self._pinned:
            self._pinned = False
            if others := self._everywhere - {self._core}:
                self._may_use(others)  # which moves it at once; the kernel may take its time
            self._may_use(self._everywhere)

    def _may_use(self, cores: Collection[int]) -> None:
        with suppress(OSError):  # a core that the container took away meanwhile is no reason to fail
            os.sched_setaffinity(self.thread, cores)


def cpu_ns_of(thread: int) -> int:
    """CPU time of a thread of this process, by the kernel's number."""
    return time.clock_gettime_ns(~thread << 3 | 6)  # CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED, as pthreads makes it


@cache
def _warn() -> None:
    """Once per process."""
    _log.warning(
        "isochrone: threads of this process that give way to others may not come back, so it can stand still while "
        "another model's batch runs; give the server CAP_SYS_NICE or an RLIMIT_NICE of 40 (docker run --ulimit nice=40)"
    )
