"""Reads this backend's counts from the text of /metrics: sums over labels, differences, quantiles of histograms."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from operator import add, sub

_LINE = re.compile(r"^(isochrone_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

_Key = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class MetricCounts:
    """The series of one moment, or what was added between two."""

    values: dict[_Key, float]

    def __add__(self, other: MetricCounts) -> MetricCounts:
        return self._with(other, add)

    def __sub__(self, other: MetricCounts) -> MetricCounts:
        return self._with(other, sub)

    def total(self, name: str, **labels: str) -> float:
        """Sum of a series over all labels but those given."""
        wanted = set(labels.items())
        return sum(value for (series, own), value in self.values.items() if series == name and wanted <= own)

    def mean(self, histogram: str) -> float:
        """NaN where nothing was observed."""
        count = self.total(f"{histogram}_count")
        return self.total(f"{histogram}_sum") / count if count else math.nan

    def quantile(self, histogram: str, q: float) -> float:
        """Interpolated within its bucket, as Prometheus does; NaN where nothing was observed."""
        cumulative: dict[float, float] = defaultdict(float)
        for (series, labels), value in self.values.items():
            if series == f"{histogram}_bucket":
                cumulative[float(dict(labels)["le"])] += value
        count = max(cumulative.values(), default=0.0)
        below_bound, below = 0.0, 0.0
        for bound in sorted(cumulative):
            if count and cumulative[bound] >= q * count:
                if math.isinf(bound) or cumulative[bound] == below:
                    return below_bound
                return below_bound + (bound - below_bound) * (q * count - below) / (cumulative[bound] - below)
            below_bound, below = bound, cumulative[bound]
        return math.nan

    def _with(self, other: MetricCounts, combine: Callable[[float, float], float]) -> MetricCounts:
        keys = self.values.keys() | other.values.keys()
        return MetricCounts({key: combine(self.values.get(key, 0.0), other.values.get(key, 0.0)) for key in keys})


def parse(text: str) -> MetricCounts:
    """Lines that are not this backend's are passed over."""
    return MetricCounts(
        {
            (match[1], frozenset((m[1], m[2]) for m in _LABEL.finditer(match[2] or ""))): float(match[3])
            for match in _LINE.finditer(text)
        }
    )
