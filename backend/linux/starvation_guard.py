"""Watches the threads that execute batches on cores, and helps those that strangers on their core keep from it.

It sleeps while nothing executes, and looks once in `WINDOW_NS` while something does: most batches end before.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from backend.linux.low_priority import Aside, cpu_ns_of
from backend.linux.raised_priority import go_ahead
from backend.linux.starvation import WINDOW_NS, Help, help_for, window

_LINGERS = 10
"""Looks at nothing before it sleeps until it is woken, which costs the batch that wakes it some 10 µs."""
_CORES = os.cpu_count() or 1


class _Watched:
    """Since when which thread has had how much CPU time, in the batch that began then."""

    def __init__(
        self, aside: Aside, turns: Callable[[], int], stuck: Callable[[], None], busy: Callable[[], bool]
    ) -> None:
        self.aside, self._turns, self._stuck, self._busy = aside, turns, stuck, busy
        self._began_ns: int | None = None
        self._since: dict[int, tuple[int, int]] = {}

    def look(self) -> int | None:
        """Help where it is due; returns when to look again, None where nothing executes that could be helped more."""
        aside = self.aside
        if (began_ns := aside.began_ns) is None:
            return time.monotonic_ns() + WINDOW_NS if self._busy() else None
        if aside.helped == Help.RISE:
            return None
        if began_ns != self._began_ns:
            self._began_ns, self._since = began_ns, {aside.thread: (began_ns, aside.cpu_ns)}
        due_ns = []
        for thread in (aside.thread, *(aside.intra_op_threads.ids if aside.intra_op_threads else ())):
            try:
                now_ns, cpu_ns = time.monotonic_ns(), cpu_ns_of(thread)
            except OSError:  # it ended meanwhile
                continue
            since_ns, cpu_since_ns = self._since.setdefault(thread, (now_ns, cpu_ns))
            window_ns = window(suspended=aside.suspended)
            if now_ns - since_ns >= window_ns:
                by = self._help(thread, now_ns - since_ns, cpu_ns - cpu_since_ns)
                if by > aside.helped and aside.help(by, began_ns):
                    self._since.clear()
                    if aside.stands_aside:
                        self._stuck()
                since_ns = now_ns
                self._since[thread] = since_ns, cpu_ns
            due_ns.append(since_ns + window_ns)
        return min(due_ns, default=None)

    def _help(self, thread: int, wall_ns: int, cpu_ns: int) -> Help:
        turns, suspended = self._turns(), self.aside.suspended
        by = help_for(wall_ns, cpu_ns, turns=turns, suspended=suspended, core_free=True)
        if by == Help.NONE or not _waits(thread):
            return Help.NONE
        return help_for(wall_ns, cpu_ns, turns=turns, suspended=suspended, core_free=_core_free())


class Guard:
    """Of this process. Its thread starts with the first that it watches."""

    def __init__(self) -> None:
        self._watched: tuple[_Watched, ...] = ()
        self._noticed = self._sleeps = self._closed = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def watch(
        self,
        aside: Aside,
        turns: Callable[[], int],
        stuck: Callable[[], None] = lambda: None,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """turns: how many threads of lanes take turns on its core, itself counted.

        stuck: called where it is to rise and the kernel does not let it. busy: whether it was given a batch that has
        not ended; a thread that never comes back may starve before it begins one.
        """
        with self._starting:
            self._watched = (*self._watched, _Watched(aside, turns, stuck, busy))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="isochrone-guard", daemon=True)
                self._thread.start()

    def notice(self) -> None:
        """A batch is about to be executed, or was given to a thread that will."""
        self._noticed = True
        if self._sleeps:
            self._wake.set()

    def close(self) -> None:
        """End its thread."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=30.0)

    def _run(self) -> None:
        go_ahead()  # what is to be helped waits behind strangers: whoever helps must not
        quiet = 0
        while not self._closed:
            quiet = 0 if self._noticed else quiet + 1
            self._noticed = False
            due_ns = [due for watched in self._watched if (due := watched.look()) is not None]
            if due_ns:
                quiet = 0
            elif quiet > _LINGERS:
                self._sleep()
            now_ns = time.monotonic_ns()
            time.sleep(max(0, min((*due_ns, now_ns + WINDOW_NS)) - now_ns) / 1e9)

    def _sleep(self) -> None:
        self._sleeps = True
        if not self._noticed and not self._closed:
            self._wake.wait()
        self._sleeps = False
        self._wake.clear()


def _waits(thread: int) -> bool:
    """Whether it would run if it had a core. What waits for something else, such as a helper for work, needs none."""
    try:
        status = Path(f"/proc/self/task/{thread}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] == "R"


def _core_free() -> bool:
    """Whether fewer threads want to run on this machine than it has cores, this one and the one that waits left out.

    A guess where the process may use but some of them; a thread that is moved in vain shares a core as before.
    """
    runnable = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
    return int(runnable) - 2 < _CORES
