"""Departure times of requests, decided before the first leaves: from a seed, equal for whatever is compared."""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import isfinite
from pathlib import Path

import msgspec
import numpy as np

from backend.errors import ConfigError
from backend.load.outcomes import Outcome, Status
from predictor.bounded_file import read_at_most

Times = Callable[[float, float, np.random.Generator], Sequence[float]]
"""(rate per second, seconds, stream) → arrivals in 0..seconds."""

_BURST_S, _QUIET_SHARE = 1.0, 0.2
_TIME_COLUMN = "TIMESTAMP"
NO_DEADLINE_MS = 1e12
_TRACE_BYTES_MAX = 1 << 28
_SHOWN_CHARS_MAX = 80
_TIME_MAX_S = 1e12
"""Latest time in a trace, some 30,000 years: rounds of a longer one would leave what numbers hold."""


class Traffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Load on one model. slo_ms: from arrival to answer; None: no deadline. priority_class: 1 is the highest."""

    model: str
    rate_per_s: float
    slo_ms: float | None = None
    priority_class: int = 1


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to be. at_s: from the start of the load."""

    at_s: float
    model: str
    slo_ms: float
    priority: int = 1

    def outcome(self, sent_s: float, answered_s: float, status: Status, error: str = "") -> Outcome:
        """Outcome of it. Times count from the start of the load."""
        return Outcome(self.model, self.at_s, sent_s, answered_s, self.slo_ms, self.priority, status, error)


def poisson(traffic: Iterable[Traffic], seconds: float, seed: int) -> tuple[Arrival, ...]:
    """Each model's own Poisson process; see `arrivals`."""
    return arrivals(traffic, seconds, seed, "poisson")


def arrivals(traffic: Iterable[Traffic], seconds: float, seed: int, process: str) -> tuple[Arrival, ...]:
    """Merged in order of time; a model's times depend on its place and the seed. process: of `PROCESSES`."""
    return _merged(PROCESSES[process], traffic, seconds, seed)


def along(trace: Sequence[float], traffic: Iterable[Traffic], seconds: float, seed: int) -> tuple[Arrival, ...]:
    """Each model along a stretch of its own of a recorded stream, squeezed to its rate, so that bursts stay bursts.

    trace: seconds from its start, ascending; where it ends it begins again. Where a stretch begins depends on the seed.
    """
    return _merged(partial(_stretch, trace), traffic, seconds, seed)


def _merged(times: Times, traffic: Iterable[Traffic], seconds: float, seed: int) -> tuple[Arrival, ...]:
    merged = [
        Arrival(at_s, t.model, t.slo_ms or NO_DEADLINE_MS, t.priority_class)
        for i, t in enumerate(traffic)
        for at_s in times(t.rate_per_s, seconds, np.random.default_rng((seed, i)))
    ]
    return tuple(sorted(merged, key=lambda a: a.at_s))


def _stretch(trace: Sequence[float], rate_per_s: float, seconds: float, stream: np.random.Generator) -> list[float]:
    """Takes as many arrivals as the rate asks for, one after the other in the trace, from a random one on."""
    count = round(rate_per_s * seconds)
    length_s = trace[-1] + trace[-1] / len(trace)  # and the gap to the next round
    rounds, places = np.divmod(int(stream.integers(len(trace))) + np.arange(count + 1), len(trace))
    times = np.array(trace)[places] + rounds * length_s
    spent_s = times[-1] - times[0]
    if spent_s == 0.0:  # so few that all arrive at once
        return [0.0] * count
    squeezed: list[float] = ((times[:-1] - times[0]) / spent_s * seconds).tolist()
    return squeezed


def read_trace(path: Path) -> list[float]:
    """Seconds from the first: of a CSV with a column TIMESTAMP, or a number per line. Raises ConfigError."""
    try:
        lines = read_at_most(path, _TRACE_BYTES_MAX).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the trace '{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from None
    column = 0
    first = 1
    if lines and _TIME_COLUMN in (names := next(csv.reader(lines[:1]))):
        column, first = names.index(_TIME_COLUMN), 2
    times: list[float] = []
    for number, row in enumerate(csv.reader(lines[first - 1 :]), first):
        if not row:
            continue
        at_s = _seconds(row[column] if column < len(row) else "")
        if at_s is None or not 0.0 <= at_s <= _TIME_MAX_S:
            allowed = f"a time of 0 s or later, at most {_TIME_MAX_S:g} s, is expected"
            raise ConfigError(f"the trace '{path}', line {number}: {allowed}, got {str(row)[:_SHOWN_CHARS_MAX]}")
        if times and at_s < times[-1]:
            shown = row[column][:_SHOWN_CHARS_MAX]
            raise ConfigError(f"the trace '{path}', line {number}: times must ascend, got {shown}")
        times.append(at_s)
    if len(times) < 2:
        raise ConfigError(f"the trace '{path}' holds {len(times)} times; at least 2 are needed")
    if times[-1] == times[0]:
        raise ConfigError(f"the trace '{path}' spans no time: all its times are equal")
    return [at_s - times[0] for at_s in times]


def _seconds(text: str) -> float | None:
    try:
        at_s = float(text)
    except ValueError:
        whole, _, fraction = text.strip().partition(".")
        try:  # seven digits of a second are more than `datetime` reads
            at_s = datetime.fromisoformat(whole).timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
        except ValueError:
            return None
    return at_s if isfinite(at_s) else None


def _poisson(rate_per_s: float, seconds: float, stream: np.random.Generator) -> Sequence[float]:
    """Given their number, the arrivals of a Poisson process lie uniformly."""
    times: list[float] = stream.uniform(0.0, seconds, stream.poisson(rate_per_s * seconds)).tolist()
    return times


def _uniform(rate_per_s: float, seconds: float, stream: np.random.Generator) -> Sequence[float]:
    """One every 1 / rate, from a random instant on."""
    gap_s = 1.0 / rate_per_s
    times: list[float] = np.arange(stream.uniform(0.0, gap_s), seconds, gap_s).tolist()
    return times


def _bursty(rate_per_s: float, seconds: float, stream: np.random.Generator) -> Sequence[float]:
    """Poisson by turns at a fifth of the rate and at as much more, each for a second on average."""
    turns: list[float] = [0.0]
    while turns[-1] < seconds:
        turns.append(turns[-1] + stream.exponential(_BURST_S))
    busy_first = int(stream.integers(2))
    most = rate_per_s * (2.0 - _QUIET_SHARE)
    times = []
    for at_s in sorted(_poisson(most, seconds, stream)):
        busy = (bisect_left(turns, at_s) + busy_first) % 2
        if busy or stream.uniform() < _QUIET_SHARE / (2.0 - _QUIET_SHARE):
            times.append(at_s)
    return times


PROCESSES: dict[str, Times] = {"poisson": _poisson, "uniform": _uniform, "bursty": _bursty}
