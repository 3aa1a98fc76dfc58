"""Requests that are to be expected while a batch runs, and how many of their deadlines it would cost.

A stream is what one model receives in one class: its rate, as measured, and the time that its requests are allowed.
Sums over streams, by arrays: no simulation of what is to come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log

import numpy as np

from backend.scheduler.latency_model import LatencyModel
from backend.scheduler.messages import Request
from backend.scheduler.running_batch import MIN_SLOWDOWN
from backend.scheduler.source import Source
from predictor.slowdown_function import SlowdownFunctions, Sums, Vector

STREAMS_MAX = 64
"""Classes are the callers' choice: of more streams the one that was silent for longest is forgotten."""
MEMORY_NS = 1_000_000_000
"""Time constant of a stream's rate: what is silent for some seconds is expected no more."""
_ALLOWED_WEIGHT = 0.1
_SPREAD = 1.9
_STEEPNESS_MIN, _STEEPNESS_MAX = 3.0, 20.0


def steepness(bound: float) -> float:
    """Exponent of the chance to miss, a log-logistic one, where so many times the predicted execution is the bound."""
    return min(_STEEPNESS_MAX, max(_STEEPNESS_MIN, _SPREAD / max(1e-9, log(bound)))) if bound > 1.0 else _STEEPNESS_MAX


def requests_in_time(requests: Iterable[Request], now_ns: int, takes_ns: float, steep: float) -> float:
    """Number of requests that are expected to meet their deadlines if a batch of them takes so long from now on."""
    expected = 0.0
    for request in requests:
        allowed_ns = inf if request.deadline_ns is None else request.deadline_ns - now_ns
        if allowed_ns > 0:
            expected += 1.0 / (1.0 + (takes_ns / allowed_ns) ** steep)
    return expected


@dataclass(slots=True, eq=False)
class _Stream:
    """rows, group: of its last request; allowed_ns: averaged; recent: arrivals, each less the longer it is ago."""

    source: Source
    priority: int
    rows: int
    group: int
    allowed_ns: float
    last_ns: int
    recent: float = 1.0


class ExpectedArrivals:
    """Streams of all models; those without a deadline lose nothing and are left out."""

    def __init__(self, latency: LatencyModel) -> None:
        self._latency = latency
        self._streams: dict[tuple[int, int], _Stream] = {}
        self._arrays: _StreamArrays | None = None
        self.highest = inf
        """The highest class of all streams."""

    def add(self, source: Source, request: Request) -> None:
        """Count an arrival."""
        if request.deadline_ns is None or request.deadline_ns <= request.arrival_ns:
            return
        key, now_ns = (source.id, request.priority), request.arrival_ns
        allowed_ns = request.deadline_ns - now_ns
        stream = self._streams.get(key)
        if stream is None:
            if len(self._streams) >= STREAMS_MAX:
                del self._streams[min(self._streams, key=lambda k: self._streams[k].last_ns)]
            stream = _Stream(source, request.priority, request.rows, request.group, allowed_ns, now_ns)
            self._streams[key] = stream
            self._changed()
            return
        if (request.rows, request.group) != (stream.rows, stream.group):
            stream.rows, stream.group, self._arrays = request.rows, request.group, None
        stream.allowed_ns += _ALLOWED_WEIGHT * (allowed_ns - stream.allowed_ns)
        stream.recent = 1.0 + stream.recent * exp(min(0, stream.last_ns - now_ns) / MEMORY_NS)
        stream.last_ns = max(stream.last_ns, now_ns)
        if self._arrays is not None:
            self._arrays.update(key, stream)

    def forget(self, source: int) -> None:
        """Expect nothing of a model that is gone."""
        for key in [key for key in self._streams if key[0] == source]:
            del self._streams[key]
        self._changed()

    def renew(self) -> None:
        """Look slowdowns and solo latencies up anew: they were learned."""
        self._arrays = None

    def of_class(self, priority: int) -> list[tuple[Source, int, int, float]]:
        """Model, rows, group and allowed time of each stream of a class."""
        streams = self._streams.values()
        return [(s.source, s.rows, s.group, s.allowed_ns) for s in streams if s.priority == priority]

    def classes(self) -> set[int]:
        """Those of all streams."""
        return {stream.priority for stream in self._streams.values()}

    def lost(self, sums: Sequence[Sums], waits_ns: Vector, now_ns: int, weights: Mapping[int, float]) -> Vector:
        """(k,) deadlines expected to be lost per nanosecond beside each further sums, rather than beside the first.

        waits_ns: (k,) until a lane is free for those of a higher class than the lowest in `weights`; weights: by class,
        of a lost deadline; other classes count nothing.
        """
        if not self._streams:
            return np.zeros(len(sums) - 1)
        if self._arrays is None:
            self._arrays = _StreamArrays(self._latency, self._streams)
        return self._arrays.lost(sums, waits_ns, now_ns, weights, steepness(self._latency.bound.multiplier))

    def _changed(self) -> None:
        self._arrays = None
        self.highest = min((stream.priority for stream in self._streams.values()), default=inf)


class _StreamArrays:
    """The streams by columns, (n,) each."""

    def __init__(self, latency: LatencyModel, streams: dict[tuple[int, int], _Stream]) -> None:
        self._places = {key: place for place, key in enumerate(streams)}
        owns = [s.source.own(s.rows, s.group) for s in streams.values()]
        rows = [
            latency.slowdown_function(s.source.id, own).row()
            for s, own in zip(streams.values(), owns, strict=True)
        ]
        self._functions = SlowdownFunctions(np.array(rows).T)
        self._solo_ns = np.array([float(own.load.solo_ns) for own in owns])
        around_ns = [latency.overhead_ns + sum(s.source.solo_transfers(s.rows)) for s in streams.values()]
        self._around_ns = np.array(around_ns)
        self._priorities = np.array([s.priority for s in streams.values()])
        self._allowed_ns, self._last_ns, self._recent = np.array(
            [(s.allowed_ns, s.last_ns, s.recent) for s in streams.values()], dtype=float
        ).T.copy()

    def update(self, key: tuple[int, int], stream: _Stream) -> None:
        place = self._places[key]
        self._allowed_ns[place] = stream.allowed_ns
        self._last_ns[place] = stream.last_ns
        self._recent[place] = stream.recent

    def lost(
        self, sums: Sequence[Sums], waits_ns: Vector, now_ns: int, weights: Mapping[int, float], steep: float
    ) -> Vector:
        """See `ExpectedArrivals.lost`."""
        slowdowns = np.maximum(self._functions.slowdowns(np.array(sums)), MIN_SLOWDOWN)
        takes_ns = self._solo_ns * slowdowns + self._around_ns
        lowest = max(weights)
        takes_ns[1:] += np.where(self._priorities < lowest, waits_ns[:, None], 0.0)
        chances = 1.0 / (1.0 + (self._allowed_ns / takes_ns) ** steep)
        weight = np.zeros(len(self._solo_ns))
        for priority, each in weights.items():
            weight[self._priorities == priority] = each
        weight *= self._recent * np.exp((self._last_ns - now_ns) / MEMORY_NS) / MEMORY_NS
        lost: Vector = np.maximum(chances[1:] - chances[0], 0.0) @ weight
        return lost
