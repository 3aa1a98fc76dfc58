"""A process of a model's load, in short launches of the lowest class that the device's scheduler decides.

The kernel has no CPU priority below that of batches, so whatever a load does slows them down. The process stands still
until a lane is free and no deadline is expected to be hurt; then it has that lane's core for a moment, where a batch
with less time preempts it as it does any other.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue

from backend.config.model_config import EngineConfig
from backend.linux.execution_priority import ExecutionPriority
from backend.linux.loading_priority import LOADING, may_restore, raise_process
from backend.model_process.batch import Answered, Batch
from backend.model_process.dispatcher import Dispatcher
from backend.model_process.loading.joining import LOWEST_CLASS, PATIENCE_S, join_to_load
from backend.model_process.placement import preemptible_lanes
from backend.model_process.request import Pending
from backend.scheduler.messages import Reject

_MOMENT_S = 0.1
"""A launch: short, so that forecasts hold, and long beside a decision."""
_log = logging.getLogger("isochrone")


@contextmanager
def child_in_gaps(config: EngineConfig, child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let a child process run in gaps of the device, at the lowest CPU priority, until the context ends.

    Where lanes are no cores, or cannot be preempted, it is left alone.
    """
    if not config.on_cpu or not preemptible_lanes(config) or not may_restore():
        yield
        return
    with LOADING.suspended():  # threads that are started here decide and launch; this one waits
        gaps = _Gaps(config, child)
        try:
            yield
        finally:
            gaps.close()


class _Gaps:
    """Asks for one moment after the other. A runner of `Dispatcher`, too."""

    separate = False

    def __init__(self, config: EngineConfig, child: subprocess.Popen[bytes]) -> None:
        self._child, self._everywhere = child, os.sched_getaffinity(child.pid)
        self._over, self._ran = threading.Event(), SimpleQueue[float]()
        self._dispatcher = join_to_load(config, round(_MOMENT_S * 1e9), (1,), self)
        if self._dispatcher is None:  # it runs all the same
            return
        child.send_signal(signal.SIGSTOP)
        with suppress(OSError):
            os.sched_setscheduler(child.pid, os.SCHED_IDLE, os.sched_param(0))
        self._thread = threading.Thread(target=self._ask, args=(self._dispatcher, config.name), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more: the child has ended."""
        self._over.set()
        self._ran.put(0.0)  # in place of a moment that does not come any more
        if self._dispatcher is not None:
            self._thread.join()
            self._dispatcher.close()

    def _ask(self, dispatcher: Dispatcher, name: str) -> None:
        waited_s = 0.0
        try:
            for number in itertools.count(1):
                began_s = time.monotonic()
                ran_s = self._moment(dispatcher, number, PATIENCE_S - waited_s)
                waited_s += time.monotonic() - began_s - ran_s
                if self._over.is_set():
                    return
                if waited_s >= PATIENCE_S:
                    break
            _log.warning(
                "isochrone: model '%s': its load waited %.1f s for the device to have time for it, and goes on at "
                "ordinary priority",
                *(name, waited_s),
            )
        finally:
            if not self._over.is_set():  # nothing that goes wrong here leaves it standing
                with suppress(OSError):
                    os.sched_setaffinity(self._child.pid, self._everywhere)
                raise_process(self._child.pid)
                self._child.send_signal(signal.SIGCONT)

    def _moment(self, dispatcher: Dispatcher, number: int, patience_s: float) -> float:
        """Ask for a launch; returns the seconds that it lasted, 0 where it did not come in time."""
        request = Pending(number, None, {}, (), 1, 0, time.monotonic_ns(), None, LOWEST_CLASS)
        dispatcher.submit([request])
        try:
            return self._ran.get(timeout=patience_s)
        except Empty:
            return 0.0 if dispatcher.cancel(request) else self._ran.get()  # it runs already

    def run(self, batch: Batch, executing: ExecutionPriority) -> list[Answered]:  # noqa: ARG002 - the runner's call
        """Let the child run on the core of the calling thread's lane."""
        began_s = time.monotonic()
        with suppress(OSError):  # it has ended
            os.sched_setaffinity(self._child.pid, os.sched_getaffinity(0))
        self._child.send_signal(signal.SIGCONT)
        if not self._over.wait(_MOMENT_S):
            self._child.send_signal(signal.SIGSTOP)
        batch.exec_ns = max(1, round((time.monotonic() - began_s) * 1e9))
        return [[]]

    def answer(self, batch: Batch, answers: Sequence[Answered]) -> None:  # noqa: ARG002
        """See `dispatcher.Runner`."""
        self._ran.put(batch.exec_ns / 1e9)

    def reject(self, request: Pending, reject: Reject) -> None:
        """See `dispatcher.Runner`: requests without a deadline are never rejected."""
        raise AssertionError(f"{request.id} was rejected: {reject}")
