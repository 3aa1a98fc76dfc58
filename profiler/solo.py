"""Times a model's solo runs, briefly. Knows nothing of engines, files or devices: it only calls what it is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from profiler.rounds import interval

RUNS_MIN = 3
_RUNS_MAX = 200  # per batch size
_RUNS_STABLE_MIN = 8  # below it the interval of the median is the whole range
_WIDTH_STABLE = 0.02  # of that interval, as a share of the median


def measure_solo(
    run: Callable[[int], int],
    batch_sizes: Iterable[int],
    *,
    budget_ns: int,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[int, int]:
    """Median nanoseconds by batch size of `run(batch_size)`, which executes one batch and returns its execution time.

    First each size, ascending, gets the least number of runs, after one that warms it up. The smallest size gets
    them even past the budget; a larger one that is not expected to fit is left out, and with it those above.
    What is then left of the budget goes to the sizes whose median is not yet stable, in equal shares.
    """
    end_ns = clock() + budget_ns
    times_ns = _cover(run, sorted(set(batch_sizes)), end_ns, clock)
    for i, (size, times) in enumerate(times_ns.items()):
        now_ns = clock()
        share_end_ns = now_ns + (end_ns - now_ns) // (len(times_ns) - i)
        while clock() < share_end_ns and len(times) < _RUNS_MAX and not _is_stable(times):
            times.append(_timed(run, size))
    return {size: _median(sorted(times)) for size, times in times_ns.items()}


def _cover(run: Callable[[int], int], sizes: list[int], end_ns: int, clock: Callable[[], int]) -> dict[int, list[int]]:
    """The least number of runs for as many sizes as the time until `end_ns` holds."""
    times_ns: dict[int, list[int]] = {}
    row_ns = 0  # of the size before: time per row falls with the size, so the next is expected too long, if anything
    for size in sizes:
        if times_ns and row_ns * size * (RUNS_MIN + 1) > end_ns - clock():
            break
        run(size)
        start_ns = clock()
        times_ns[size] = [_timed(run, size) for _ in range(RUNS_MIN)]
        row_ns = (clock() - start_ns) // (size * RUNS_MIN)
    return times_ns


def _timed(run: Callable[[int], int], size: int) -> int:
    return max(1, run(size))  # a clock too coarse for the model must not give a latency of zero


def _is_stable(times_ns: list[int]) -> bool:
    """A narrow interval of the median, so that a few runs that something disturbed do not count."""
    if len(times_ns) < _RUNS_STABLE_MIN:
        return False
    ordered = sorted(times_ns)
    low, high = interval(ordered, 0.5)
    return high - low <= _WIDTH_STABLE * _median(ordered)


def _median(ordered: list[int]) -> int:
    """The higher of the two in the middle; `statistics` takes longer to import than to do without."""
    return ordered[len(ordered) // 2]
