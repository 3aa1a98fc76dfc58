"""The heap of a process that outlives its models: what a model held goes back to the system when it is closed.

By itself glibc keeps such room for later, in as many heaps ("arenas") as there were threads that loaded a model.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8
_libc = ctypes.CDLL(None)


def keep_one_heap() -> None:
    """To be called before threads are started. `malloc_trim` cuts off the end of the first heap only."""
    with suppress(AttributeError):  # another C library than glibc
        _libc.mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Whatever is free now."""
    with suppress(AttributeError):
        _libc.malloc_trim(0)
