"""A thread that watches those executing batches on cores, and boosts the ones that foreign processes starve.

It sleeps while nothing executes, and checks once in `WINDOW_NS` while something does: most batches end before.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from backend.linux.low_priority import LowPriority, cpu_ns_of
from backend.linux.raised_priority import raise_priority
from backend.linux.starvation import WINDOW_NS, Boost, boost_for, window

_LINGERS = 10
"""Idle checks before it sleeps until it is woken, which costs the batch that wakes it some 10 µs."""
_CORES = os.cpu_count() or 1


@dataclass
class _Watched:
    """CPU time of the threads that execute a low-priority batch: when each was measured last, and how much it had."""

    priority: LowPriority
    threads_on_core: Callable[[], int]
    on_stuck: Callable[[], None]
    is_busy: Callable[[], bool]
    began_ns: int | None = None
    since: dict[int, tuple[int, int]] = field(default_factory=dict)

    def check(self) -> int | None:
        """Boost the thread where due; returns the time of the next check, None where nothing can be boosted further."""
        priority = self.priority
        if (began_ns := priority.began_ns) is None:
            return time.monotonic_ns() + WINDOW_NS if self.is_busy() else None
        if priority.boosted == Boost.RAISE:
            return None
        if began_ns != self.began_ns:
            self.began_ns, self.since = began_ns, {priority.thread: (began_ns, priority.cpu_ns)}
        due_ns = []
        for thread in (priority.thread, *(priority.intra_op_threads.ids if priority.intra_op_threads else ())):
            try:
                now_ns, cpu_ns = time.monotonic_ns(), cpu_ns_of(thread)
            except OSError:  # it ended meanwhile
                continue
            since_ns, cpu_since_ns = self.since.setdefault(thread, (now_ns, cpu_ns))
            window_ns = window(suspended=priority.suspended)
            if now_ns - since_ns >= window_ns:
                by = self._boost(thread, now_ns - since_ns, cpu_ns - cpu_since_ns)
                if by > priority.boosted and priority.boost(by, began_ns):
                    self.since.clear()
                    if priority.stuck_low:
                        self.on_stuck()
                since_ns = now_ns
                self.since[thread] = since_ns, cpu_ns
            due_ns.append(since_ns + window_ns)
        return min(due_ns, default=None)

    def _boost(self, thread: int, wall_ns: int, cpu_ns: int) -> Boost:
        judge = partial(
            boost_for,
            wall_ns,
            cpu_ns,
            threads_on_core=self.threads_on_core(),
            suspended=self.priority.suspended,
        )
        if judge(core_free=True) == Boost.NONE or not _is_runnable(thread):
            return Boost.NONE
        return judge(core_free=_core_free())


class StarvationGuard:
    """Guard of a process. Its thread starts with the first lane's thread that it watches."""

    def __init__(self) -> None:
        self._watched: tuple[_Watched, ...] = ()
        self._batch_due = self._sleeps = self._closed = False
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def watch(
        self,
        priority: LowPriority,
        threads_on_core: Callable[[], int],
        on_stuck: Callable[[], None] = lambda: None,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """Watch the thread of a `LowPriority`. threads_on_core: lanes' threads that share its core, itself counted.

        on_stuck: called where it should be raised and the kernel forbids it. is_busy: whether the thread was given a
        batch that has not ended; one whose priority stays low may starve before it begins a batch.
        """
        with self._starting:
            self._watched = (*self._watched, _Watched(priority, threads_on_core, on_stuck, is_busy))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="isochrone-guard", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Check soon: a batch is about to be executed, or was given to a thread that will."""
        self._batch_due = True
        if self._sleeps:
            self._woken.set()

    def close(self) -> None:
        """End the guard's thread."""
        self._closed = True
        self._woken.set()
        if self._thread is not None:
            self._thread.join(timeout=30.0)

    def _run(self) -> None:
        raise_priority()  # foreign processes that starve a lane must not starve its guard
        quiet = 0
        while not self._closed:
            quiet = 0 if self._batch_due else quiet + 1
            self._batch_due = False
            due_ns = [due for watched in self._watched if (due := watched.check()) is not None]
            if due_ns:
                quiet = 0
            elif quiet > _LINGERS:
                self._sleep()
            now_ns = time.monotonic_ns()
            time.sleep(max(0, min((*due_ns, now_ns + WINDOW_NS)) - now_ns) / 1e9)

    def _sleep(self) -> None:
        self._sleeps = True
        if not self._batch_due and not self._closed:
            self._woken.wait()
        self._sleeps = False
        self._woken.clear()


def _is_runnable(thread: int) -> bool:
    """True where the thread runs or waits for a core; one that waits for something else, such as work, needs none."""
    try:
        status = Path(f"/proc/self/task/{thread}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] == "R"


def _core_free() -> bool:
    """True where fewer threads are runnable on this machine than it has cores, without this one and the starved one.

    A guess where the process may use only some of the cores; a thread that migrates in vain shares a core as before.
    """
    runnable = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
    return int(runnable) - 2 < _CORES
