"""How fast this machine's core is just now, for what is told in microseconds: virtual machines change by the minute."""

from __future__ import annotations

import timeit

_CALLS, _REPEATS = 200, 50


def machine_speed() -> str:
    """The fastest of several looks."""
    least_s = min(timeit.repeat("sum(range(1000))", number=_CALLS, repeat=_REPEATS)) / _CALLS
    return f"sum(range(1000)) takes {1e6 * least_s:.1f} µs"
