"""A lock between processes that waits only so long: nothing here may keep a model from loading."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL_S = 0.02
STALLED_S = 5.0
"""Age of the last progress from which a holder is not waited for, such as a model whose run does not end."""


@contextmanager
def exclusive(path: Path, wait_s: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[bool]:
    """Holds the lock file `path`; gives False where it was not had within `wait_s`, or its holder makes no progress.

    The work goes on without it then. The kernel drops the lock with the process, so a crash leaves nothing behind.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # a read-only folder has no lock to wait for
        descriptor = -1
    try:
        yield descriptor >= 0 and _acquire(descriptor, wait_s, sleep)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def show_progress(path: Path) -> None:
    """Marks the lock as held by a process that makes progress; for its holder."""
    with suppress(OSError):
        os.utime(path)


def _acquire(descriptor: int, wait_s: float, sleep: Callable[[float], None]) -> bool:
    for _ in range(max(1, round(wait_s / _POLL_S))):
        if (held := _try_lock(descriptor)) is not None:
            if held:
                os.utime(descriptor)
            return held
        if time.time() - os.fstat(descriptor).st_mtime > STALLED_S:
            return False
        sleep(_POLL_S)
    return False


def _try_lock(descriptor: int) -> bool | None:
    """None while another holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:  # a file system without locks
        return False
    return True
