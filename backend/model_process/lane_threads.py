"""Threads for the lanes of the device, on CPU each pinned to a core: unpinned batches disturb each other more.

Where there are fewer lanes than cores, a lane has several: its threads stay on the first, the engine's intra-op threads
on the others. Of two threads, what runs on the one *in front* goes before what runs on the other, which the kernel lets
stand still meanwhile. More lanes than cores are spread over them by turns, with a thread each, so that who shares one
with whom is known.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.linux.low_priority import Aside
from backend.linux.starvation_guard import Guard
from backend.model_process.batch import Batch

Work = Callable[[Batch, ExecutionPriority], None]


class Lanes:
    """Runs each batch given to a lane, in the order given. `work` must not raise. pinned_to: None where not on CPU.

    Where each has a core, lane `count + i` is in front of lane i. runs_again: where a thread stands still for a
    stranger and cannot come back, a copy of its batch is run by another thread; what ends second is to be ignored.
    """

    def __init__(self, count: int, work: Work, pinned_to: Sequence[int] | None, *, runs_again: bool = False) -> None:
        self._count, self._runs_again = count, runs_again
        self._guard = Guard()
        prepare: list[Callable[[_Worker], ExecutionPriority]]
        if pinned_to is None:
            prepare = [lambda _: ORDINARY_PRIORITY] * count
        else:
            shared = count > len(pinned_to)
            self._turns = -(-count // len(pinned_to))
            prepare = [
                partial(self._pinned, core=pinned_to[i % len(pinned_to)], behind=side == 0 and not shared)
                for side in range(1 if shared else 2)
                for i in range(count)
            ]
        self._workers = [_Worker(f"isochrone-lane-{i}", how, work, self._guard) for i, how in enumerate(prepare)]
        self._spares = {
            worker: _Worker(f"isochrone-spare-{i}", lambda _: ORDINARY_PRIORITY, work, self._guard)
            for i, worker in enumerate(self._workers)
            if isinstance(worker.executing, Aside) and not worker.executing.comes_back
        }
        """For batches of a lane whose thread, beside a stranger, cannot come back."""

    def __len__(self) -> int:
        """Without those in front."""
        return self._count

    def submit(self, batch: Batch) -> None:
        """Hand a batch to its lane's thread."""
        worker = self._workers[batch.lane % len(self._workers)]
        if worker in self._spares and worker.is_stuck:
            worker = self._spares[worker]
        worker.give(batch)

    def suspend(self, batch: Batch) -> None:
        """It stands still for one that goes before it, however long that takes."""
        self._workers[batch.lane % len(self._workers)].suspend(batch)

    def close(self) -> None:
        """Let each lane end its batches, then its thread."""
        everybody = (*self._workers, *self._spares.values())
        for worker in everybody:
            worker.give(None)
        for worker in everybody:
            worker.thread.join(timeout=30.0)
        self._guard.close()

    def _pinned(self, worker: _Worker, *, core: int, behind: bool) -> ExecutionPriority:
        aside = Aside(behind=behind, core=core)
        self._guard.watch(aside, lambda: self._turns, partial(self._stuck, worker), lambda: worker.is_busy)
        return aside

    def _stuck(self, worker: _Worker) -> None:
        if self._runs_again and (batch := worker.give_up()) is not None:
            self._spares[worker].give(replace(batch))


class _Worker:
    """A thread that runs batches one after the other. executing: made by it, once and for all."""

    def __init__(self, name: str, prepare: Callable[[_Worker], ExecutionPriority], work: Work, guard: Guard) -> None:
        self._queue = SimpleQueue[Batch | None]()
        self._unfinished = deque[Batch]()
        self._prepare, self._work, self._guard = prepare, work, guard
        self._given_up = False
        ready = SimpleQueue[ExecutionPriority]()
        self.thread = threading.Thread(target=self._run, args=(ready,), name=name, daemon=True)
        self.thread.start()
        self.executing = ready.get()

    def give(self, batch: Batch | None) -> None:
        """Run it after those given before; None: end the thread then."""
        if batch is not None:
            self._unfinished.append(batch)
            self._guard.notice()
        self._queue.put(batch)

    @property
    def is_busy(self) -> bool:
        """Whether it was given a batch that has not ended."""
        return bool(self._unfinished)

    @property
    def is_stuck(self) -> bool:
        """It stands still, or would, and what comes is better run by another thread."""
        return self._given_up or (isinstance(self.executing, Aside) and self.executing.stands_aside)

    def give_up(self) -> Batch | None:
        """What it runs, where somebody else is to run it too."""
        if self._given_up or not self._unfinished:
            return None
        self._given_up = True
        return self._unfinished[0]

    def suspend(self, batch: Batch) -> None:
        """Where it runs that batch."""
        if self._unfinished and self._unfinished[0] is batch and isinstance(self.executing, Aside):
            self.executing.suspend()

    def _run(self, ready: SimpleQueue[ExecutionPriority]) -> None:
        executing = self._prepare(self)
        ready.put(executing)
        while (batch := self._queue.get()) is not None:
            if isinstance(executing, Aside):
                executing.suspended = False
                if batch.preempted:
                    executing.suspend()
            self._work(batch, executing)
            self._unfinished.popleft()
            self._given_up = False
