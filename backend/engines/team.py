"""Batches on several cores: the lane's thread stays on the first, a helper of ONNX Runtime's on each other one.

Helpers take the rank that the lane's thread executes with, so that a batch goes before another, or stands still for it,
as a whole.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import onnxruntime

from backend.engines.onnx_session import open_session
from backend.engines.protocol import AS_USUAL, Executing, OnnxOptions

_OPENING = threading.Lock()
"""One session at a time, so that new threads are its own."""
_STARTING_S = 1.0
"""A helper pins itself as it starts."""


class Helpers:
    """threads: by the kernel's numbers."""

    def __init__(self, threads: Sequence[int]) -> None:
        self._threads = threads
        self._rank: tuple[int, int] | None = None

    def follow(self) -> None:
        """Take the calling thread's rank, as far as the kernel lets them."""
        rank = policy, niceness = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        if rank == self._rank:
            return
        self._rank = rank
        for thread in self._threads:
            with suppress(OSError):
                os.sched_setscheduler(thread, policy, os.sched_param(0))
                os.setpriority(os.PRIO_PROCESS, thread, niceness)


@contextmanager
def together(executing: Executing, helpers: Helpers) -> Iterator[None]:
    """Executing with helpers."""
    with executing:
        helpers.follow()
        yield


def open_for_team(
    path: Path, cores: Sequence[int], asked: OnnxOptions = AS_USUAL
) -> tuple[onnxruntime.InferenceSession, Helpers]:
    """Helpers spin between two operators of a batch, but not between two batches. Raises ConfigError."""
    entries = {
        "session.intra_op_thread_affinities": ";".join(str(core + 1) for core in cores[1:]),
        "session.force_spinning_stop": "1",
    }
    with _OPENING:
        before = _threads()
        session = open_session(path, threads=len(cores), entries=entries, asked=asked)
        return session, Helpers(_pinned(before, cores[1:]))


def _pinned(before: set[int], cores: Sequence[int]) -> list[int]:
    """Threads that were started since and are each on one of the cores; all of them, if they come in time."""
    found: list[int] = []
    until_s = time.monotonic() + _STARTING_S
    while len(found) < len(cores) and time.monotonic() < until_s:
        time.sleep(0.001)
        found = [thread for thread in _threads() - before if _core_of(thread) in cores]
    return found


def _core_of(thread: int) -> int | None:
    """The only one that it may use."""
    with suppress(ProcessLookupError):
        cores = os.sched_getaffinity(thread)
        return cores.pop() if len(cores) == 1 else None
    return None


def _threads() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}
