"""Batches on several cores: the lane's thread stays on the first, a helper of ONNX Runtime's on each other one.

Helpers take the rank that the lane's thread executes with, so that a batch goes before another, or stands still for it,
as a whole.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import onnxruntime

from backend.config.engine_options import AS_USUAL, OnnxOptions
from backend.engines.onnxruntime.session import open_session
from backend.engines.protocol import Executing

_OPENING = threading.Lock()
"""One session at a time, so that new threads are its own."""
_STARTING_S = 1.0
"""A helper pins itself as it starts."""
SPARING = {"session.intra_op.allow_spinning": "0"}
"""For helpers whose time counts against a quota: they do not spin."""


class Helpers:
    """threads: by the kernel's numbers, each on a core of its own."""

    def __init__(self, threads: Sequence[int]) -> None:
        self.threads = threads
        self._own = [os.sched_getaffinity(thread) for thread in threads]
        self._rank: tuple[int, int] | None = None
        self._cores: Collection[int] | None = None

    def follow(self, thread: int, cores: Collection[int] | None) -> None:
        """See `backend.engines.protocol.Helpers.follow`."""
        rank = policy, niceness = os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)
        if rank != self._rank:
            self._rank = rank
            for helper in self.threads:
                with suppress(OSError):
                    os.sched_setscheduler(helper, policy, os.sched_param(0))
                    os.setpriority(os.PRIO_PROCESS, helper, niceness)
        if cores != self._cores:
            self._cores = cores
            for helper, own in zip(self.threads, self._own, strict=True):
                with suppress(OSError):
                    os.sched_setaffinity(helper, cores or own)


class Together(Executing):
    """Executing with helpers."""

    def __init__(self, executing: Executing, helpers: Helpers) -> None:
        self._executing, self._helpers = executing, helpers

    def __enter__(self) -> None:
        self._executing.__enter__()
        self._executing.bring(self._helpers)

    def __exit__(self, *raised: object) -> bool | None:
        return self._executing.__exit__(*raised)


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
