"""Growth of processes' memory: a robust slope of each that lives long enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.soak.plan import JUDGED_FROM_S, SLOPE_MAX_PERCENT
from benchmarks.soak.processes import Reading

_TEN_MINUTES_S = 600.0
_PAIRS_FROM = 8
"""Readings without which there is no slope."""


@dataclass(frozen=True)
class Growth:
    """Resident memory of one process over the time that is judged.

    percent: its slope per ten minutes, of its median, with the 95 % interval low to high; None: it lived too shortly.
    """

    role: str
    pid: int
    seconds: float
    first_mb: float
    last_mb: float
    pss_mb: float
    percent: float | None
    low: float | None = None
    high: float | None = None

    @property
    def judged(self) -> bool:
        return self.percent is not None and self.seconds >= JUDGED_FROM_S

    @property
    def grows(self) -> bool:
        return self.judged and self.percent is not None and self.percent >= SLOPE_MAX_PERCENT


def growths(readings: Sequence[Reading], from_s: float) -> list[Growth]:
    """Growth of every process from `from_s` on, in order of role and first reading (Theil and Sen's estimator)."""
    by_process: dict[tuple[str, int], list[Reading]] = {}
    for reading in readings:
        if reading.at_s >= from_s:
            by_process.setdefault((reading.role, reading.pid), []).append(reading)
    return sorted(map(_growth, by_process.values()), key=lambda growth: (growth.role != "tritonserver", growth.role))


def _growth(readings: Sequence[Reading]) -> Growth:
    at_s = np.array([reading.at_s for reading in readings])
    rss_mb = np.array([reading.rss_kb for reading in readings]) / 1e3
    first, last = readings[0], readings[-1]
    tenth = max(1, len(readings) // 10)
    known = Growth(
        first.role,
        first.pid,
        last.at_s - first.at_s,
        float(np.median(rss_mb[:tenth])),
        float(np.median(rss_mb[-tenth:])),
        float(np.median([reading.pss_kb for reading in readings])) / 1e3,
        None,
    )
    if len(readings) < _PAIRS_FROM:
        return known
    slope, _, low, high = stats.theilslopes(rss_mb, at_s)
    per_mb = 100.0 * _TEN_MINUTES_S / float(np.median(rss_mb))
    return Growth(
        *(known.role, known.pid, known.seconds, known.first_mb, known.last_mb, known.pss_mb),
        *(float(value) * per_mb for value in (slope, low, high)),
    )
