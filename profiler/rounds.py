"""Times one batch size in rounds, so that callers can alternate between many: a slow phase of a shared machine then
falls on some rounds of each and on no single one as a whole. Knows nothing of engines, files or devices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil, floor, sqrt

import msgspec
import numpy as np

ROUNDS_MIN = 6
"""The least number whose smallest and largest value bound the median with 95 %."""
ROUND_NS = 300_000_000
_STABLE = 0.02
_DISTURBED = 1.15
"""Ratio to the median of all rounds above which a round was disturbed by the machine's other users."""


class SoloTimes(msgspec.Struct, frozen=True):
    """Solo execution times of one batch size, in nanoseconds; each interval is (low, high) with 95 % confidence.

    `stable`: the median's interval is within 2 % to either side. `dropped`: rounds left out of p95 as disturbed.
    """

    p50_ns: int
    p50_interval_ns: tuple[int, int]
    p95_ns: int
    p95_interval_ns: tuple[int, int]
    runs: int
    rounds: int
    dropped: int
    stable: bool


class Rounds:
    """Calls `run`, which executes one batch and returns its execution time in nanoseconds.

    Done once the median is stable, or `budget_ns` is spent; never before `ROUNDS_MIN` rounds, which are of `round_ns`
    where that leaves time for so many.
    """

    def __init__(
        self,
        run: Callable[[], int],
        budget_ns: int,
        *,
        round_ns: int = ROUND_NS,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._run, self._clock = run, clock
        self._budget_ns, self._round_ns = budget_ns, min(round_ns, budget_ns // ROUNDS_MIN)
        self._rounds: list[list[int]] = []
        self.spent_ns = 0

    def one(self) -> None:
        """One more round: a run that warms the caches up, then as many as fit, at least one."""
        started_ns = self._clock()
        self._run()
        times_ns = [self._timed()]
        while self._clock() - started_ns < self._round_ns:
            times_ns.append(self._timed())
        self._rounds.append(times_ns)
        self.spent_ns += self._clock() - started_ns

    @property
    def usable(self) -> bool:
        """There are rounds enough for a result."""
        return len(self._rounds) >= ROUNDS_MIN

    @property
    def done(self) -> bool:
        """Further rounds are not worth their time."""
        return self.usable and (self.spent_ns >= self._budget_ns or self.result().stable)

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 1.0 when done."""
        return 1.0 if self.done else min(0.99, self.spent_ns / self._budget_ns)

    def result(self) -> SoloTimes:
        """Times from the rounds so far, at least one.

        p50 is the median of the rounds' medians, and its interval is theirs: runs of one round share its phase, so
        they are not independent. p95 is over all runs of the rounds that nothing disturbed.
        """
        medians = [float(np.median(times)) for times in self._rounds]
        rounded = sorted(map(round, medians))
        p50_ns = round(float(np.median(rounded)))
        undisturbed = [times for times, each in zip(self._rounds, medians, strict=True) if each <= _DISTURBED * p50_ns]
        runs = sorted(time_ns for times in undisturbed for time_ns in times)
        low, high = interval(rounded, 0.5)
        return SoloTimes(
            p50_ns=p50_ns,
            p50_interval_ns=(low, high),
            p95_ns=max(p50_ns, runs[ceil(0.95 * len(runs)) - 1]),
            p95_interval_ns=interval(runs, 0.95),
            runs=sum(map(len, self._rounds)),
            rounds=len(self._rounds),
            dropped=len(self._rounds) - len(undisturbed),
            stable=high - low <= 2 * _STABLE * p50_ns,
        )

    def _timed(self) -> int:
        return max(1, self._run())  # a clock too coarse for the model must not give a latency of zero


def interval(ordered: list[int], quantile: float) -> tuple[int, int]:
    """The 95 % interval of a quantile from order statistics, whatever the distribution.

    Ranks n q ± 1.96 √(n q (1 − q)) (Conover, Practical Nonparametric Statistics, section 3.2); where there are too few
    values for a rank, the extreme one stands for it.
    """
    n = len(ordered)
    half = 1.96 * sqrt(n * quantile * (1 - quantile))
    return ordered[max(0, floor(n * quantile - half))], ordered[min(n - 1, ceil(n * quantile + half))]
