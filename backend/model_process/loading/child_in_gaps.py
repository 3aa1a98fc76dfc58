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
_LOOK_S = 0.5
"""Between two looks whether the child has ended, while no launch is granted."""
_log = logging.getLogger("isochrone")


@contextmanager
def child_in_gaps(config: EngineConfig, child: int) -> Iterator[None]:
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

    def __init__(self, config: EngineConfig, child: int) -> None:
        self._child, self._everywhere = child, os.sched_getaffinity(child)
        self._handle = os.pidfd_open(child)
        self._over, self._ran = threading.Event(), SimpleQueue[float]()
        self._dispatcher = join_to_load(config, round(_MOMENT_S * 1e9), (1,), self)
        if self._dispatcher is None:  # it runs all the same
            return
        self._signal(signal.SIGSTOP)
        with suppress(OSError):
            os.sched_setscheduler(child, os.SCHED_IDLE, os.sched_param(0))
        self._thread = threading.Thread(target=self._ask, args=(self._dispatcher, config.name), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more: the child has ended."""
        self._over.set()
        if self._dispatcher is not None:
            self._thread.join()
            self._dispatcher.close()
        os.close(self._handle)

    def _ask(self, dispatcher: Dispatcher, name: str) -> None:
        ids, waited_s = itertools.count(1), 0.0
        while not self._over.is_set():
            now_ns, began_s = time.monotonic_ns(), time.monotonic()
            request = Pending(next(ids), None, {}, (), 1, 0, now_ns, None, LOWEST_CLASS)
            dispatcher.submit([request])
            ran_s: float | None = None
            while ran_s is None and not self._over.is_set() and waited_s + time.monotonic() - began_s < PATIENCE_S:
                with suppress(Empty):
                    ran_s = self._ran.get(timeout=_LOOK_S)
            if ran_s is None and not dispatcher.cancel(request):
                ran_s = self._ran.get()  # it runs already
            waited_s += time.monotonic() - began_s - (ran_s or 0.0)
            if waited_s >= PATIENCE_S:
                _log.warning(
                    "isochrone: model '%s': its load waited %.1f s for the device to have time for it, and goes on at "
                    "ordinary priority",
                    *(name, waited_s),
                )
                with suppress(OSError):
                    os.sched_setaffinity(self._child, self._everywhere)
                raise_process(self._child)
                self._signal(signal.SIGCONT)
                return

    def run(self, batch: Batch, executing: ExecutionPriority) -> list[Answered]:  # noqa: ARG002 - the runner's call
        """Let the child run on the core of the calling thread's lane."""
        began_s = time.monotonic()
        with suppress(OSError):
            os.sched_setaffinity(self._child, os.sched_getaffinity(0))
        self._signal(signal.SIGCONT)
        self._over.wait(_MOMENT_S)
        self._signal(signal.SIGSTOP)
        batch.exec_ns = max(1, round((time.monotonic() - began_s) * 1e9))
        return [[]]

    def answer(self, batch: Batch, answers: Sequence[Answered]) -> None:  # noqa: ARG002
        """See `dispatcher.Runner`."""
        self._ran.put(batch.exec_ns / 1e9)

    def reject(self, request: Pending, reject: Reject) -> None:
        """See `dispatcher.Runner`: requests without a deadline are never rejected."""
        raise AssertionError(f"{request.id} was rejected: {reject}")

    def _signal(self, number: int) -> None:
        if not self._over.is_set():
            with suppress(OSError):  # it has ended
                signal.pidfd_send_signal(self._handle, number)
