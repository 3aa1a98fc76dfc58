"""Heap of a process that outlives its models: the memory of a closed model goes back to the system.

By itself glibc keeps it, in as many heaps ("arenas") as there were threads that loaded a model.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8
_libc = ctypes.CDLL(None)


def limit_to_one() -> None:
    """Use one heap only, since `malloc_trim` trims no other; called before threads are started."""
    with suppress(AttributeError):  # another C library than glibc
        _libc.mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Return free memory to the system."""
    with suppress(AttributeError):
        _libc.malloc_trim(0)
