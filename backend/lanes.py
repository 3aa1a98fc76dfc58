"""A thread per lane of the device, on CPU pinned to a core of its own: unpinned batches disturb each other more.

More lanes than cores are left to the operating system: pinned, two batches would share a core beside an idle one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue

from backend.batch import Batch

_NICENESS = 10
"""Of a lane's thread on CPU: what hands requests in and answers out shares its core, needs it for microseconds, and
would else wait for the rest of a time slice at each of the several steps of an answer."""


def cores() -> list[int]:
    """The cores that this process may use, ascending."""
    return sorted(os.sched_getaffinity(0))


def pin(core: int) -> None:
    """Keep the calling thread on `core`. A core that the container took away meanwhile is no reason to fail."""
    with suppress(OSError):
        os.sched_setaffinity(0, {core})


def give_way() -> None:
    """Let what hands requests in and answers out go before the calling thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class Lanes:
    """Runs each batch given to a lane, in the order given. `work` must not raise. pinned_to: None where not on CPU."""

    def __init__(self, count: int, work: Callable[[Batch], None], pinned_to: Sequence[int] | None) -> None:
        self._queues: list[SimpleQueue[Batch | None]] = [SimpleQueue() for _ in range(count)]
        own: list[int | None] = list(pinned_to) if pinned_to is not None and count <= len(pinned_to) else [None] * count
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(queue, work, own[i], pinned_to is not None),
                name=f"isochrone-lane-{i}",
                daemon=True,
            )
            for i, queue in enumerate(self._queues)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return len(self._queues)

    def submit(self, batch: Batch) -> None:
        """Hand a batch to its lane's thread."""
        self._queues[batch.lane % len(self._queues)].put(batch)

    def close(self) -> None:
        """Let each lane end its batches, then its thread."""
        for queue in self._queues:
            queue.put(None)
        for thread in self._threads:
            thread.join(timeout=30.0)

    @staticmethod
    def _run(queue: SimpleQueue[Batch | None], work: Callable[[Batch], None], core: int | None, on_cpu: bool) -> None:
        if core is not None:
            pin(core)
        if on_cpu:
            give_way()
        while (batch := queue.get()) is not None:
            work(batch)
