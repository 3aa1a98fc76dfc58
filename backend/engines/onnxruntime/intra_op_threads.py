"""Batches on several cores: the lane's thread stays on the first, an intra-op thread of ONNX Runtime on each other one.

Intra-op threads take the priority that the lane's thread executes with, so that a batch preempts another, or is
preempted, as a whole.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import onnxruntime

from backend.engines.onnxruntime.session import open_session
from backend.engines.protocol import DEFAULT_ONNX_OPTIONS, OnnxOptions
from backend.linux.execution_priority import IntraOpThreads

_OPENING = threading.Lock()
"""One session at a time, so that new threads belong to it."""
_STARTING_S = 1.0
"""An intra-op thread pins itself as it starts."""
NO_SPINNING = {"session.intra_op.allow_spinning": "0"}
"""For intra-op threads whose time counts against a CPU quota."""


def open_pinned_session(
    path: Path, cores: Sequence[int], onnx_options: OnnxOptions = DEFAULT_ONNX_OPTIONS
) -> tuple[onnxruntime.InferenceSession, IntraOpThreads]:
    """Open a session with an intra-op thread on each core but the first, which is the lane's own thread's.

    They spin between two operators of a batch, but not between two batches. Raises ConfigError.
    """
    entries = {
        "session.intra_op_thread_affinities": ";".join(str(core + 1) for core in cores[1:]),
        "session.force_spinning_stop": "1",
    }
    with _OPENING:
        before = _threads()
        session = open_session(path, threads=len(cores), entries=entries, onnx_options=onnx_options)
        return session, IntraOpThreads(_pinned(before, cores[1:]))


def _pinned(before: set[int], cores: Sequence[int]) -> list[int]:
    """Ids of the threads started since `before` that are each pinned to one of the cores; fewer after `_STARTING_S`."""
    found: list[int] = []
    until_s = time.monotonic() + _STARTING_S
    while len(found) < len(cores) and time.monotonic() < until_s:
        time.sleep(0.001)
        found = [thread for thread in _threads() - before if _core_of(thread) in cores]
    return found


def _core_of(thread: int) -> int | None:
    """The core that a thread is pinned to."""
    with suppress(ProcessLookupError):
        cores = os.sched_getaffinity(thread)
        return cores.pop() if len(cores) == 1 else None
    return None


def _threads() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}
