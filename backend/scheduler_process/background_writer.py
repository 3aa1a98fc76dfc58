"""Writes on a thread of its own, bounded in memory and on disk: no launch waits for a disk.

Both logs of the scheduler's process, of samples and of events, are written by this.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

DEVICE = "{device}"
"""In a log's name: the device's."""
_REST_S = 0.2
"""Between two bursts: woken for each item, the writer would take turns with the decisions."""
_CLOSE_S = 5.0
_BATCH = 32
"""Written at once: so long, some 0.1 ms, the decisions may have to wait for Python's lock."""

T = TypeVar("T")


class BackgroundWriter(Generic[T]):
    """Hands items to `write`, in order and at most `_BATCH` at once, on a daemon thread. `write` must not raise."""

    def __init__(self, name: str, write: Callable[[Sequence[T]], None], max_queued: int) -> None:
        self._write, self._max_queued = write, max_queued
        self._queue: deque[T] = deque()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Number of items that wait to be written."""
        return len(self._queue)

    def put(self, item: T) -> bool:
        """Queue an item, in a fraction of a microsecond; False where the disk is too far behind."""
        if len(self._queue) >= self._max_queued:
            return False
        self._queue.append(item)
        if not self._wake.is_set():
            self._wake.set()
        return True

    def close(self) -> None:
        """Write what is queued, and wait for that, but not for a disk that hangs."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=_CLOSE_S)

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing.is_set()
            while self._queue:
                self._write([self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))])
            self._closing.wait(_REST_S)


def log_file(named: str, device: str) -> Path:
    """The file that a variable of the environment names for this device's log."""
    return Path(named.replace(DEVICE, device)).expanduser()


class BoundedFile:
    """Lines at the end of `path`. A full file becomes PATH.1, in place of the last one."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path, self._max_bytes = path, max_bytes

    def append(self, data: bytes) -> None:
        """Write all of it or nothing. Opened anew each time: the file may be moved away at any moment.

        Raises OSError.
        """
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, data) < len(data):  # the disk is full: leave no broken line
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)

    def is_full(self, more: int) -> bool:
        """True where so many bytes more are too many for it. Raises OSError."""
        with suppress(FileNotFoundError):
            size = self.path.stat().st_size
            return size > 0 and size + more > self._max_bytes
        return False

    def rotate(self) -> None:
        """Set the file aside. Raises OSError."""
        with suppress(FileNotFoundError):
            self.path.replace(older(self.path))


def older(path: Path) -> Path:
    """The file that a full one becomes."""
    return path.with_name(f"{path.name}.1")
