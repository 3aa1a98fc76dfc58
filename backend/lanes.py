"""Threads for the lanes of the device, on CPU each pinned to a core: unpinned batches disturb each other more.

Where there are fewer lanes than cores, a lane is a team of them: its threads stay on the first, the engine's helpers on
the others. Of two threads, what runs on the one *in front* goes before what runs on the other, which the kernel lets
stand still meanwhile. More lanes than cores are spread over them by turns, with a thread each, so that who shares one
with whom is known.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from queue import SimpleQueue

from backend.aside import Aside
from backend.batch import Batch
from backend.engines.protocol import Executing

Work = Callable[[Batch, Executing], None]


def cores() -> list[int]:
    """The cores that this process may use, ascending."""
    return sorted(os.sched_getaffinity(0))


def teams(lanes: int) -> list[list[int]]:
    """The cores of each lane: an equal number, none of them another's, or one, by turns, where lanes outnumber them."""
    mine = cores()
    size = max(1, len(mine) // lanes)
    return [[mine[(lane * size + i) % len(mine)] for i in range(size)] for lane in range(lanes)]


def pin(core: int) -> None:
    """Keep the calling thread on `core`. A core that the container took away meanwhile is no reason to fail."""
    with suppress(OSError):
        os.sched_setaffinity(0, {core})


class Lanes:
    """Runs each batch given to a lane, in the order given. `work` must not raise. pinned_to: None where not on CPU.

    Where each has a core, lane `count + i` is in front of lane i.
    """

    def __init__(self, count: int, work: Work, pinned_to: Sequence[int] | None) -> None:
        self._count = count
        prepare: list[Callable[[], Executing]]
        if pinned_to is None:
            prepare = [nullcontext] * count
        elif count > len(pinned_to):
            prepare = [partial(_pinned, pinned_to[i % len(pinned_to)], behind=False) for i in range(count)]
        else:
            prepare = [partial(_pinned, core, behind=behind) for behind in (True, False) for core in pinned_to[:count]]
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
    def _run(queue: SimpleQueue[Batch | None], prepare: Callable[[], Executing], work: Work) -> None:
        executing = prepare()
        while (batch := queue.get()) is not None:
            work(batch, executing)


def _pinned(core: int, *, behind: bool) -> Executing:
    pin(core)
    return Aside(behind=behind)
