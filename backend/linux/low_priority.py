"""Low CPU priority for a lane's thread while it executes a batch, and only then.

A low-priority thread may wait for as long as a batch of another model takes. Were it to hold Python's lock meanwhile,
its whole process would wait: no request read, no answer sent. So the priority is lowered just for the execution, which
holds no lock, and restored after it where the kernel allows that: with CAP_SYS_NICE, or an RLIMIT_NICE of 20.

What the lanes give way to is known and short. A foreign process that takes the core for good is neither, and starves a
low-priority thread. So another thread may boost it (`LowPriority.boost`), for the batch and for a while.
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
from backend.linux.starvation import Boost

_log = logging.getLogger("isochrone")
_NICENESS, _NICENESS_MAX = 10, 19
"""Threads that read requests and send answers share the core, need it for microseconds, and would else wait for the
rest of a time slice at each of the several steps of an answer."""
BOOST_NS, BOOST_NS_MAX = 1_000_000_000, 60_000_000_000
"""A boost lasts so long; then the core is tried again, which costs a batch its time if the foreign process is still
there, so the time doubles with each try in vain. A thread that should be raised and cannot be is boosted for the
longest time at once: another thread runs its batch then."""


class LowPriority(ExecutionPriority):
    """Lowers the CPU priority of the thread that made it while entered.

    preemptible: lowered to SCHED_IDLE, so that it runs only while nothing else wants its core, not even another
    low-priority thread. core: the thread is pinned there, None: it stays on the cores that it may use.
    """

    began_ns: int | None = None
    """Start of the batch being executed, or of its suspension; None between batches. cpu_ns: the thread's CPU time
    then."""
    cpu_ns = 0
    suspended = False
    """Suspended on purpose, for another model's batch."""

    def __init__(self, *, preemptible: bool, core: int | None = None) -> None:
        self.thread = threading.get_native_id()
        self.intra_op_threads: IntraOpThreads | None = None
        self._changing = threading.Lock()
        self._everywhere = os.sched_getaffinity(0)
        self._core, self._pinned = core, False
        self._boost, self._until_ns, self._lasts_ns = Boost.NONE, 0, BOOST_NS
        self._idle_policy, self._policy = preemptible, (os.sched_getscheduler(0), os.sched_getparam(0))
        self._niceness = os.getpriority(os.PRIO_PROCESS, self.thread)
        self._low_niceness = max(self._niceness, _NICENESS_MAX if preemptible else _NICENESS)
        self._pin()
        try:
            self._lower()
        except OSError:  # some containers forbid another policy; niceness alone leaves it some 12 % of the core
            self._idle_policy = False
            self._lower()
        self.can_restore = True
        try:
            self._restore()
        except OSError:
            self.can_restore = False
            _warn_once()

    def __enter__(self) -> None:
        with self._changing:
            now_ns = time.monotonic_ns()
            if now_ns >= self._until_ns:
                self._boost = Boost.NONE
                self._pin()
            self.cpu_ns = time.thread_time_ns()
            self.began_ns = now_ns
            if self._boost < Boost.RAISE and self.can_restore:
                self._lower()

    def __exit__(self, *_: object) -> None:
        with self._changing:
            self.began_ns = None
            if self._boost < Boost.RAISE and self.can_restore:
                self._restore()

    def include(self, threads: IntraOpThreads) -> None:
        """Lower these threads too; see `ExecutionPriority.include`."""
        with self._changing:
            self.intra_op_threads = threads
            self._match_intra_op_threads()

    def move_to(self, core: int | None) -> None:
        """Pin the thread to another core, None: to none. Between two batches."""
        if core != self._core:
            with self._changing:
                self._core, self._pinned, self._until_ns = core, False, 0
                self._pin()
                if core is None:
                    self._may_use(self._everywhere)

    @property
    def boosted(self) -> Boost:
        """Boost that it executes with."""
        return self._boost

    @property
    def stuck_low(self) -> bool:
        """True while it should be raised and the kernel forbids it."""
        return self._boost == Boost.RAISE and not self.can_restore and time.monotonic_ns() < self._until_ns

    def boost(self, by: Boost, began_ns: int) -> bool:
        """Boost the batch that began at `began_ns`, and those within a while; False where it has ended.

        Called on another thread.
        """
        with self._changing:
            if self.began_ns != began_ns:
                return False
            raises = by == Boost.RAISE
            now_ns = time.monotonic_ns()
            in_vain = now_ns - self._until_ns < BOOST_NS
            self._lasts_ns = min(2 * self._lasts_ns, BOOST_NS_MAX) if in_vain else BOOST_NS
            lasts_ns = BOOST_NS_MAX if raises and not self.can_restore else self._lasts_ns
            self._boost, self._until_ns = by, now_ns + lasts_ns
            if raises and self.can_restore:
                self._restore()
            self._unpin()
            self._match_intra_op_threads()
            return True

    def suspend(self) -> None:
        """Give way to another model's batch, boosted or not. Called on another thread."""
        with self._changing:
            self.suspended, self._until_ns = True, 0
            if self.began_ns is None:
                return
            self.cpu_ns, self.began_ns = cpu_ns_of(self.thread), time.monotonic_ns()
            if self._boost == Boost.RAISE and self.can_restore:
                self._lower()
            self._boost = Boost.NONE
            self._pin()
            self._match_intra_op_threads()

    def _match_intra_op_threads(self) -> None:
        if self.intra_op_threads is not None:
            cores = None if self._pinned or self._core is None else self._everywhere
            self.intra_op_threads.match(self.thread, cores)

    def _lower(self) -> None:
        if self._idle_policy:
            os.sched_setscheduler(self.thread, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.setpriority(os.PRIO_PROCESS, self.thread, self._low_niceness)

    def _restore(self) -> None:
        if self._idle_policy:
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
def _warn_once() -> None:
    """Log once per process that priorities cannot be restored."""
    _log.warning(
        "isochrone: this process cannot restore the priority of a thread that it has lowered, so it can stall while "
        "another model's batch runs; give the server CAP_SYS_NICE or an RLIMIT_NICE of 40 (docker run --ulimit nice=40)"
    )
