"""The cores that this process may use, and how lanes share them."""

from __future__ import annotations

import os
from contextlib import suppress

from backend.linux.cpu_quota import cpu_quota


def cores() -> list[int]:
    """The cores that this process may use, ascending."""
    return sorted(os.sched_getaffinity(0))


def width() -> int:
    """How many cores' worth of time this process may use: all of its cores', unless its container has a quota."""
    quota = cpu_quota()
    return len(cores()) if quota is None else max(1, min(len(cores()), int(quota)))


def may_pin() -> bool:
    """Whether lanes stay on cores of theirs.

    Not where a quota allows less than the cores: these are then other containers' too, who would choose the same ones
    for the same reasons, and of more cores than lanes one is free as a rule, which the kernel finds.
    """
    return width() == len(cores())


def lane_cores(lanes: int) -> list[list[int]]:
    """The cores of each lane: an equal number, none of them another's, or one, by turns, where lanes outnumber them.

    Where lanes may not be pinned, but how many they are means anything.
    """
    mine = cores()[: width()]
    size = max(1, len(mine) // lanes)
    return [[mine[(lane * size + i) % len(mine)] for i in range(size)] for lane in range(lanes)]


def pin(core: int) -> None:
    """Keep the calling thread on `core`. A core that the container took away meanwhile is no reason to fail."""
    with suppress(OSError):
        os.sched_setaffinity(0, {core})
