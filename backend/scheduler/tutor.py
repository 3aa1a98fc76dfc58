"""What the scheduler's process does with the predictor between two decisions: teach it, refit it, keep it on disk."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from backend.scheduler.core import Scheduler
from predictor.learners.kernel import Fit
from predictor.state_file import load, save

_SAVE_EVERY_S = 60.0
_NICENESS = 10
"""Of a refit, as of a lane: it must not hold up what hands requests in and answers out."""
_log = logging.getLogger("isochrone.scheduler")


class Tutor:
    """Owns the predictor and its bound; `path` survives the process. Used by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.predictor, self.bound = load(path)
        self._refit: threading.Thread | None = None
        self._fitted: list[Fit | None] = []
        self._changed = False
        self._saved_at = time.monotonic()

    def teach(self, scheduler: Scheduler) -> None:
        """After a decision was sent. Takes some 0.1 ms per batch that ended."""
        self._changed |= scheduler.learn() > 0
        if self._fitted:
            self._refit = None
            if (fit := self._fitted.pop()) is not None:
                self.predictor.install(fit)
        if self._refit is None and (job := self.predictor.refit()) is not None:
            self._refit = threading.Thread(target=self._run, args=(job,), name="isochrone-refit", daemon=True)
            self._refit.start()
        if not scheduler.running and time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """If anything was learned since the last time. A disk that takes nothing costs a warning."""
        self._saved_at = time.monotonic()
        if not self._changed:
            return
        try:
            save(self._path, self.predictor, self.bound)
            self._changed = False
        except OSError as error:
            _log.warning("what was learned cannot be saved to '%s': %s", self._path, error.strerror)

    def _run(self, job: Callable[[], Fit]) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        fit: Fit | None = None
        try:
            fit = job()
        except Exception:  # the last fit goes on to serve
            _log.exception("the predictor could not be refitted")
        self._fitted.append(fit)
