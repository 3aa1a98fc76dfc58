"""Trains the predictor between two decisions and keeps it on disk.

Batches of a throttled GPU train it like any other: co-located batches draw its power and heat it up together, deadlines
hold then too, and without them the bound would be broken just when it is needed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from backend.scheduler.core import Scheduler
from predictor.state_file import encode, load, save

_SAVE_EVERY_S = 60.0
_DISK_S = 2.0
_log = logging.getLogger("isochrone.scheduler")


class OnlineTrainer:
    """Owns the predictor, its bound and the device's bandwidths; `path` survives the process.

    on_encode: called before the predictor's state is read, which makes it learn the samples that it had put off.
    """

    def __init__(self, path: Path, on_encode: Callable[[], None] = lambda: None) -> None:
        self._path, self._on_encode = path, on_encode
        self._learned = load(path)
        self.predictor, self.bound, self.transfers = self._learned
        self._changed = False
        self._saved_at = time.monotonic()
        self._saving: threading.Thread | None = None

    def train(self, scheduler: Scheduler) -> None:
        """Learn from the batches that ended, after a decision was sent. Takes some 0.1 ms per batch."""
        self._changed |= scheduler.learn() > 0
        if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Save what was learned since the last time, if anything, on a thread: no decision waits for a disk."""
        if self._saving is not None and self._saving.is_alive():
            return
        self._saved_at = time.monotonic()
        if self._changed:
            self._changed = False
            self._on_encode()
            self._saving = threading.Thread(target=self._write, args=(encode(self._learned),), daemon=True)
            self._saving.start()

    def close(self) -> None:
        """Save, and wait for the disk, but not for one that hangs."""
        self._join()  # what is being written may be older
        self.save()
        self._join()

    def _join(self) -> None:
        if self._saving is not None:
            self._saving.join(timeout=_DISK_S)

    def _write(self, data: bytes) -> None:
        try:
            save(self._path, data)
        except OSError as error:  # a disk that takes nothing costs a warning
            self._changed = True
            _log.warning("what was learned cannot be saved to '%s': %s", self._path, error.strerror)
