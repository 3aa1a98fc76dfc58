"""Lowest CPU priority for a model's load, which gives way to whatever serves; it grows, so that every load ends.

The lowered thread runs as `SCHED_IDLE`: on a core that nothing else wants, or by turns with a batch, which runs so too.
What it starts meanwhile, such as the process of a trial, is lowered as well. Where the load is not over after a while,
all of that becomes ordinary.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

GROWS_S = 10.0
_log = logging.getLogger("isochrone")


class LoadingPriority(AbstractContextManager[None]):
    """Context in which the calling thread is lowered; `lower` and `restore` do the same, the second of them on the same
    thread. A thread of another policy than the ordinary one keeps that, and so does one that the kernel would not let
    come back: see `may_restore`.
    """

    def __init__(self, grows_s: float = GROWS_S) -> None:
        self._grows_s = grows_s
        self._changing = threading.Lock()
        self._lowered: int | None = None
        """The thread, as long as it is lowered."""
        self._threads_before = frozenset[int]()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> None:
        self.lower()

    def __exit__(self, *_: object) -> None:
        self.restore()

    def lower(self) -> None:
        """Lower the calling thread, unless one is lowered already."""
        if self._lowered is not None or os.sched_getscheduler(0) != os.SCHED_OTHER or not may_restore():
            return
        self._timer = threading.Timer(self._grows_s, self._grow)
        self._timer.daemon = True
        self._timer.start()  # before: it must not be low itself
        with self._changing:
            self._threads_before = frozenset(_threads_of(os.getpid()))
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            self._lowered = threading.get_native_id()

    def restore(self) -> None:
        """Make the thread ordinary again, and those that it has started, such as Triton's own, which serve later."""
        if self._timer is not None:
            self._timer.cancel()
        with self._changing:
            if self._lowered is not None:
                self._make_threads_ordinary(self._lowered)
                self._lowered = None

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Context in which the thread is ordinary, and so is what it starts."""
        was_lowered = self._lowered is not None
        self.restore()
        try:
            yield
        finally:
            if was_lowered:
                self.lower()

    def _grow(self) -> None:
        with self._changing:
            if self._lowered is None:
                return
            _log.warning(
                "isochrone: a model's load is not over after %g s at the lowest priority, since others hold the cores; "
                "it goes on at ordinary priority",
                self._grows_s,
            )
            self._make_threads_ordinary(self._lowered)
            for child in _children():
                raise_process(child)

    def _make_threads_ordinary(self, lowered: int) -> None:
        started = set(_threads_of(os.getpid())) - self._threads_before
        for thread in {lowered, *started}:
            _make_ordinary(thread)


def may_restore() -> bool:
    """True where the kernel lets a thread that was lowered come back, by a thread that tries.

    It takes CAP_SYS_NICE, or an RLIMIT_NICE of 20.
    """
    found: list[bool] = []

    def attempt() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            found.append(True)
        except OSError:
            found.append(False)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return found == [True]


def _make_ordinary(thread: int) -> None:
    with suppress(OSError):  # it ended meanwhile
        if os.sched_getscheduler(thread) == os.SCHED_IDLE:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def raise_process(process: int) -> None:
    """Make a process that was lowered with a load ordinary; others, such as the scheduler's, stay as they are."""
    with suppress(OSError):
        if os.sched_getscheduler(process) == os.SCHED_IDLE:
            for thread in _threads_of(process):
                _make_ordinary(thread)


def _threads_of(process: int) -> list[int]:
    with suppress(OSError):
        return [int(thread.name) for thread in Path(f"/proc/{process}/task").iterdir()]
    return []


def _children() -> list[int]:
    """Processes that this one has started, and those that they have."""
    found, open_ = list[int](), [os.getpid()]
    while open_:
        process = open_.pop()
        for thread in _threads_of(process):
            with suppress(OSError):
                children = Path(f"/proc/{process}/task/{thread}/children").read_text().split()
                found += map(int, children)
                open_ += map(int, children)
    return found


LOADING = LoadingPriority()
"""Of this process's load, from the import of the backend's code on."""
