"""Threads for the lanes of the device, on CPU each pinned to a core: unpinned batches disturb each other more.

A lane with a core to itself has two: what runs on the one *in front* goes before what runs on the other, which the
kernel lets stand still meanwhile. More lanes than cores are spread over them by turns, so that who shares one with
whom is known.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

from backend.batch import Batch

_NICENESS = 10
"""Of a lane's thread on CPU: what hands requests in and answers out shares its core, needs it for microseconds, and
would else wait for the rest of a time slice at each of the several steps of an answer."""
_NICENESS_MAX = 19


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


def stand_back() -> None:
    """Let the calling thread run while nothing else wants its core; what gives way goes before it too."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS_MAX)
    with suppress(OSError):  # where a container forbids it, niceness alone leaves it some 12 % beside what gives way
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


class Lanes:
    """Runs each batch given to a lane, in the order given. `work` must not raise. pinned_to: None where not on CPU.

    Where each has a core, lane `count + i` is in front of lane i.
    """

    def __init__(self, count: int, work: Callable[[Batch], None], pinned_to: Sequence[int] | None) -> None:
        self._count = count
        prepare: list[Callable[[], None]]
        if pinned_to is None:
            prepare = [_as_it_is] * count
        elif count > len(pinned_to):
            prepare = [partial(_pinned, pinned_to[i % len(pinned_to)], give_way) for i in range(count)]
        else:
            prepare = [partial(_pinned, core, then) for then in (stand_back, give_way) for core in pinned_to[:count]]
        self._queues: list[SimpleQueue[Batch | None]] = [SimpleQueue() for _ in prepare]
        self._threads = [
            threading.Thread(target=self._run, args=(*lane, work), name=f"isochrone-lane-{i}", daemon=True)
            for i, lane in enumerate(zip(self._queues, prepare, strict=True))
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Without those in front."""
        return self._count

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
    def _run(queue: SimpleQueue[Batch | None], prepare: Callable[[], None], work: Callable[[Batch], None]) -> None:
        prepare()
        while (batch := queue.get()) is not None:
            work(batch)


def _pinned(core: int, then: Callable[[], None]) -> None:
    pin(core)
    then()


def _as_it_is() -> None:
    pass
