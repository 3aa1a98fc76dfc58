"""Boosts for threads that execute batches and starve beside foreign processes on their core: when, and how much."""

from __future__ import annotations

from enum import IntEnum

WINDOW_NS = 10_000_000
"""Least time over which a thread is judged: in less, threads that read requests and send answers may need its core."""
SUSPENDED_NS = 1_000_000_000
"""Least time for a batch that is suspended for another model's; no message ends a suspension, this does."""
_LATE = 3
"""A check that comes so many windows late was kept waiting too, as where the whole process is stopped."""
_STARVES, _SUFFERS = 0.25, 0.6
"""Shares of the CPU time that the thread should have had. Of two lanes that are always busy, beside the threads that
read their requests and send their answers, a batch gets two thirds and more."""


class Boost(IntEnum):
    """Strength of a boost. MIGRATE: to whatever core is free. RAISE: to ordinary priority as well."""

    NONE = 0
    MIGRATE = 1
    RAISE = 2


def boost_for(wall_ns: int, cpu_ns: int, *, threads_on_core: int, suspended: bool, core_free: bool) -> Boost:
    """Boost for a thread that was runnable for `wall_ns` and had the CPU for `cpu_ns` of it.

    threads_on_core: lanes' threads that share its core, itself counted. core_free: another core is idle.
    """
    window_ns = window(suspended=suspended)
    if not window_ns <= wall_ns <= _LATE * window_ns:
        return Boost.NONE
    share = cpu_ns * threads_on_core / wall_ns
    if share < _STARVES:
        return Boost.RAISE
    return Boost.MIGRATE if share < _SUFFERS and core_free else Boost.NONE


def window(*, suspended: bool) -> int:
    """Nanoseconds that a thread is watched before it is judged."""
    return SUSPENDED_NS if suspended else WINDOW_NS
