"""When what executes on a lane's core is helped against strangers: whatever else took the core meanwhile."""

from __future__ import annotations

from enum import IntEnum

WINDOW_NS = 10_000_000
"""A thread is judged by this much time, or more: in less, what hands requests in and answers out may need its core."""
SUSPENDED_NS = 1_000_000_000
"""Of a batch that stands still for another model's, as it should. Its end is not told, so that this ends it."""
_LATE = 3
"""A judge that comes so many windows late was kept waiting too, as where the whole process stands still."""
_STARVES, _SUFFERS = 0.25, 0.6
"""Shares of the CPU time that it should have had. Of two lanes at work all the time beside the transport of their
requests, a batch gets two thirds and more."""


class Help(IntEnum):
    """By how much. MOVE: to whatever core is free. RISE: it does not step aside for others any more, either."""

    NONE = 0
    MOVE = 1
    RISE = 2


def help_for(wall_ns: int, cpu_ns: int, *, turns: int, suspended: bool, core_free: bool) -> Help:
    """For a thread that wanted to run for `wall_ns` and had the CPU for `cpu_ns` of it.

    turns: threads of lanes that take turns on its core, itself counted. core_free: another core has nothing to do.
    """
    window_ns = window(suspended=suspended)
    if not window_ns <= wall_ns <= _LATE * window_ns:
        return Help.NONE
    share = cpu_ns * turns / wall_ns
    if share < _STARVES:
        return Help.RISE
    return Help.MOVE if share < _SUFFERS and core_free else Help.NONE


def window(*, suspended: bool) -> int:
    """How long a thread is watched before it is judged."""
    return SUSPENDED_NS if suspended else WINDOW_NS
