"""Threads for the lanes of the device, on CPU each pinned to a core: unpinned batches disturb each other more.

Where there are fewer lanes than cores, a lane has several: its threads stay on the first, the engine's intra-op threads
on the others. A lane has two threads then: a batch on the second preempts one on the first, which the kernel suspends
meanwhile. More lanes than cores are assigned to them in rotation, with a thread each, so that it is known which lanes
share a core.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.linux.low_priority import LowPriority
from backend.linux.starvation_guard import StarvationGuard
from backend.model_process.batch import Batch

Work = Callable[[Batch, ExecutionPriority], None]


class Lanes:
    """Runs the batches of each lane in the order given. `work` must not raise. pinned_to: None where not on CPU.

    Where each lane has a core, it has a second thread for batches that preempt the first one's. runs_again: where a
    foreign process starves a thread that cannot be raised, another thread runs a copy of its batch; the caller ignores
    the end that comes second.
    """

    def __init__(self, count: int, work: Work, pinned_to: Sequence[int] | None, *, runs_again: bool = False) -> None:
        self._count, self._runs_again = count, runs_again
        self._guard = StarvationGuard()
        prepare: list[Callable[[_Worker], ExecutionPriority]]
        if pinned_to is None:
            prepare = [lambda _: ORDINARY_PRIORITY] * count
        else:
            shared = count > len(pinned_to)
            self._threads_per_core = -(-count // len(pinned_to))
            prepare = [
                partial(self._pinned, core=pinned_to[i % len(pinned_to)], preemptible=side == 0 and not shared)
                for side in range(1 if shared else 2)
                for i in range(count)
            ]
        self._workers = [_Worker(f"isochrone-lane-{i}", how, work, self._guard) for i, how in enumerate(prepare)]
        self._spares = {
            worker: _Worker(f"isochrone-spare-{i}", lambda _: ORDINARY_PRIORITY, work, self._guard)
            for i, worker in enumerate(self._workers)
            if isinstance(worker.executing, LowPriority) and not worker.executing.can_restore
        }
        """Threads for the batches of a lane whose own thread a foreign process starves, where that cannot be raised."""

    def __len__(self) -> int:
        """Number of lanes."""
        return self._count

    def submit(self, batch: Batch) -> None:
        """Hand a batch to its lane's thread."""
        worker = self._worker_of(batch)
        if worker in self._spares and worker.is_stuck:
            worker = self._spares[worker]
        worker.submit(batch)

    def suspend(self, batch: Batch) -> None:
        """Suspend a batch for one that preempts it, however long that takes."""
        self._worker_of(batch).suspend(batch)

    def close(self) -> None:
        """Let each lane end its batches, then its thread."""
        workers = (*self._workers, *self._spares.values())
        for worker in workers:
            worker.submit(None)
        for worker in workers:
            worker.thread.join(timeout=30.0)
        self._guard.close()

    def _worker_of(self, batch: Batch) -> _Worker:
        return self._workers[(batch.lane + self._count * batch.preempts) % len(self._workers)]

    def _pinned(self, worker: _Worker, *, core: int, preemptible: bool) -> ExecutionPriority:
        low = LowPriority(preemptible=preemptible, core=core)
        run_again = partial(self._run_again, worker)
        self._guard.watch(low, lambda: self._threads_per_core, run_again, lambda: worker.is_busy)
        return low

    def _run_again(self, worker: _Worker) -> None:
        if self._runs_again and (batch := worker.hand_over()) is not None:
            self._spares[worker].submit(replace(batch))


class _Worker:
    """A thread that runs batches one after the other. executing: its execution context, which it makes itself."""

    def __init__(
        self, name: str, prepare: Callable[[_Worker], ExecutionPriority], work: Work, guard: StarvationGuard
    ) -> None:
        self._queue = SimpleQueue[Batch | None]()
        self._unfinished = deque[Batch]()
        self._prepare, self._work, self._guard = prepare, work, guard
        self._handed_over = False
        ready = SimpleQueue[ExecutionPriority]()
        self.thread = threading.Thread(target=self._run, args=(ready,), name=name, daemon=True)
        self.thread.start()
        self.executing = ready.get()

    def submit(self, batch: Batch | None) -> None:
        """Run a batch after those submitted before; None: end the thread then."""
        if batch is not None:
            self._unfinished.append(batch)
            self._guard.wake()
        self._queue.put(batch)

    @property
    def is_busy(self) -> bool:
        """True while a batch that was submitted has not ended."""
        return bool(self._unfinished)

    @property
    def is_stuck(self) -> bool:
        """True where it starves, or would, and further batches are better run by another thread."""
        return self._handed_over or (isinstance(self.executing, LowPriority) and self.executing.stuck_low)

    def hand_over(self) -> Batch | None:
        """The batch that it runs, for another thread to run too; None where there is none or it was handed over."""
        if self._handed_over or not self._unfinished:
            return None
        self._handed_over = True
        return self._unfinished[0]

    def suspend(self, batch: Batch) -> None:
        """Suspend the thread, where it runs that batch."""
        if self._unfinished and self._unfinished[0] is batch and isinstance(self.executing, LowPriority):
            self.executing.suspend()

    def _run(self, ready: SimpleQueue[ExecutionPriority]) -> None:
        executing = self._prepare(self)
        ready.put(executing)
        while (batch := self._queue.get()) is not None:
            if isinstance(executing, LowPriority):
                executing.suspended = False
                if batch.preempted:
                    executing.suspend()
            self._work(batch, executing)
            self._unfinished.popleft()
            self._handed_over = False
