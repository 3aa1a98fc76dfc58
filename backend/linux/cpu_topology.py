"""CPU cores that this process may use, and their division among lanes."""

from __future__ import annotations

import os
from contextlib import suppress

from backend.linux.cpu_quota import cpu_quota


def cores() -> list[int]:
    """Cores that this process may use, ascending."""
    return sorted(os.sched_getaffinity(0))


def core_budget() -> int:
    """Cores' worth of CPU time that this process may use: all of its cores', unless its container has a quota."""
    quota = cpu_quota()
    return len(cores()) if quota is None else max(1, min(len(cores()), int(quota)))


def may_pin() -> bool:
    """True where lanes are pinned to cores of their own.

    False where a quota allows less than the cores: other containers use these too, and would pin to the same ones for
    the same reasons, while with more cores than lanes the kernel usually finds a free one.
    """
    return core_budget() == len(cores())


def lane_cores(lanes: int) -> list[list[int]]:
    """Cores of each lane: an equal number and none of another lane's; one each, in rotation, for more lanes than cores.

    Where lanes may not be pinned, only the number of cores of each means anything.
    """
    mine = cores()[: core_budget()]
    size = max(1, len(mine) // lanes)
    return [[mine[(lane * size + i) % len(mine)] for i in range(size)] for lane in range(lanes)]


def pin_thread(core: int) -> None:
    """Pin the calling thread to `core`, if the container has not taken that core away meanwhile."""
    with suppress(OSError):
        os.sched_setaffinity(0, {core})
