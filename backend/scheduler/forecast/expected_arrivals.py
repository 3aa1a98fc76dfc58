"""Requests that are to be expected while a batch runs, and how many of their deadlines it would cost.

A stream is what one model receives in one class: its rate, as measured, and the time that its requests are allowed.
Sums over streams, by arrays: no simulation of what is to come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from typing import ClassVar

import numpy as np

from backend.scheduler.latency_model import LatencyModel
from backend.scheduler.messages import Request
from backend.scheduler.running_batch import MIN_SLOWDOWN
from backend.scheduler.source import Source
from predictor.slowdown_function import ROW, Matrix, SlowdownFunction, SlowdownFunctions, Sums, Vector

STREAMS_MAX = 64
"""Classes are the callers' choice: of more streams the one that was silent for longest is forgotten."""
MEMORY_NS = 1_000_000_000
"""Time constant of a stream's rate: what is silent for some seconds is expected no more."""
_MEMORY = float(MEMORY_NS)
"""As numpy takes it soonest."""
_ALLOWED_WEIGHT = 0.1
"""Weight of the newest request in the moving average of the time that a stream's requests are allowed."""
_SPREAD = 1.9
"""ln 19, 2.94, would make the bound hold for 95 % of the batches; it is less, since what runs beside a request that has
still to come is known less well than what runs now."""
_STEEPNESS_MIN, _STEEPNESS_MAX = 3.0, 20.0
"""Of a bound of 1.9 × and of 1.1 × the prediction: a wide one of the first batches must not make all look alike."""
_RENEWED = 2
"""Streams per decision that follow what was learned: all at once would cost more than the decision."""
_WITHOUT_DEADLINE = 0.03
"""Worth of launching a request without a deadline, in deadlines met: it loses none by waiting. Worth one deadline each,
they would cost a higher class more until its price has risen; worth much less, they would hardly be served under load.
"""
_RATIO_MAX = 1e3
"""So many times the time allowed is as hopeless, and so small a part of it as certain, as can be."""


def steepness(bound: float) -> float:
    """Exponent of the chance to miss, a log-logistic one, where so many times the predicted execution is the bound."""
    return min(_STEEPNESS_MAX, max(_STEEPNESS_MIN, _SPREAD / max(1e-9, log(bound)))) if bound > 1.0 else _STEEPNESS_MAX


def worth_of_launching(requests: Iterable[Request], now_ns: int, takes_ns: float, steep: float) -> float:
    """Deadlines that are expected to be met if a batch of these requests takes so long from now on."""
    worth = 0.0
    for request in requests:
        if request.deadline_ns is None:
            worth += _WITHOUT_DEADLINE
        elif (allowed_ns := request.deadline_ns - now_ns) > 0:
            worth += 1.0 / (1.0 + min(_RATIO_MAX, takes_ns / allowed_ns) ** steep)
    return worth


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


class StreamTable:
    """The streams by columns, (n,) each: a batch of one request of each."""

    def __init__(self, latency: LatencyModel, streams: Mapping[tuple[int, int], _Stream]) -> None:
        self._latency, self._streams = latency, list(streams.values())
        self._places = {key: place for place, key in enumerate(streams)}
        self._rows = np.empty((ROW, len(streams)))
        self._solo_ns, self._around_ns = np.empty(len(streams)), np.empty(len(streams))
        self._stale, self._next = len(streams), 0
        """Streams that have still to follow what was learned, from this one on."""
        self.follow(len(streams))
        self._priorities = np.array([s.priority for s in streams.values()])
        classes = sorted(set(self._priorities.tolist()))
        self.of_class = {p: (self._priorities == p).astype(float) for p in classes}
        """(n,) 1 where a stream is of that class, else 0."""
        self._above_class = {p: self._above(p) for p in classes}
        self._allowed_ns, self._last_ns, self._recent = np.array(
            [(s.allowed_ns, s.last_ns, s.recent) for s in streams.values()], dtype=float
        ).T.copy()

    def renew(self) -> None:
        """Let the streams follow what was learned, little by little."""
        self._stale = len(self._streams)

    def follow(self, count: int = _RENEWED) -> None:
        """Look slowdowns and solo latencies of so many streams up anew, where they may have changed."""
        for _ in range(min(count, self._stale)):
            self.look_up(self._next)
            self._next = (self._next + 1) % len(self._streams)
            self._stale -= 1

    def look_up(self, place: int) -> None:
        """Look the slowdown and the solo latency of a stream's last request up."""
        stream = self._streams[place]
        source, own = stream.source, stream.source.own(stream.rows, stream.group)
        self.take(place, self._latency.slowdown_function(source.id, own))
        self._solo_ns[place] = own.load.solo_ns
        self._around_ns[place] = self._latency.overhead_ns + sum(source.solo_transfers(stream.rows))

    def take(self, place: int, function: SlowdownFunction) -> None:
        """Keep a stream's slowdown function."""
        self._rows[:, place] = function.row()

    def slowdowns(self, cases: Sequence[Sums]) -> Matrix:
        """(k, n) beside what contributes these sums, in k cases. Not bounded below."""
        functions = SlowdownFunctions(self._rows)  # made anew: views, which a copy would part from their rows
        return functions.slowdowns(np.array(cases))

    def update(self, key: tuple[int, int], stream: _Stream, *, differs: bool) -> None:
        """Follow a stream's last arrival. differs: in its rows or shape from the one before."""
        place = self._places[key]
        if differs:
            self.look_up(place)
        self._allowed_ns[place] = stream.allowed_ns
        self._last_ns[place] = stream.last_ns
        self._recent[place] = stream.recent

    def above_class(self, priority: int) -> Vector:
        """(n,) 1 where a stream is of a higher class, else 0."""
        known = self._above_class.get(priority)
        return self._above(priority) if known is None else known

    def _above(self, priority: int) -> Vector:
        return (self._priorities < priority).astype(float)

    def per_ns(self, now_ns: int) -> Vector:
        """(n,) rates, which fade in silence."""
        found: Vector = self._last_ns - float(now_ns)
        found /= _MEMORY
        np.exp(found, out=found)
        found *= self._recent
        found /= _MEMORY
        return found

    def takes_ns(self, cases: Sequence[Sums]) -> Matrix:
        """(k, n) from launch to finish beside what contributes these sums, in k cases."""
        found = self.slowdowns(cases)
        np.maximum(found, MIN_SLOWDOWN, out=found)
        found *= self._solo_ns
        found += self._around_ns
        return found

    def misses(self, takes_ns: Matrix, steep: float) -> Matrix:
        """(k, n) chances to miss where they take so long from their arrival on."""
        found: Matrix = self._allowed_ns / takes_ns
        np.minimum(found, _RATIO_MAX, out=found)
        found **= steep
        found += 1.0
        return np.divide(1.0, found, out=found)


class ArrivalForecast:
    """Deadlines that requests to come would lose by a launch at one instant, beside what contributes `sums` now.

    To be asked before the next event, as the table follows each.
    """

    def __init__(self, table: StreamTable, sums: Sums, now_ns: int, steep: float) -> None:
        self._table, self._sums, self._now_ns, self._steep = table, sums, now_ns, steep
        self._now: tuple[Vector, Vector] | None = None
        """(n,) chances to miss without the launch, and rates; None until the first question."""

    def lost(self, sums: Sums, span_ns: float, wait_ns: float, weights: Mapping[int, float]) -> float:
        """Deadlines expected to be lost while all that runs contributes these sums for `span_ns`.

        wait_ns: of that, until a lane is free for those of a higher class than the lowest in `weights`; 0: one is.
        weights: by class, of a lost deadline; other classes count nothing.
        """
        table = self._table
        # All cases in one pass: arrays so small cost by the call, not by the element.
        cases = (sums, sums) if wait_ns else (sums,)
        takes_ns = table.takes_ns(cases if self._now else (self._sums, *cases))
        if wait_ns:  # half of it, on average, for what arrives until then
            takes_ns[-1] += table.above_class(max(weights)) * (wait_ns / 2)
        misses = table.misses(takes_ns, self._steep)
        if self._now is None:
            self._now, misses = (misses[0], table.per_ns(self._now_ns)), misses[1:]
        without, per_ns = self._now
        more = misses - without
        np.maximum(more, 0.0, out=more)
        lost = span_ns * more[0] if not wait_ns else (span_ns - wait_ns) * more[0] + wait_ns * more[1]
        lost *= per_ns
        return sum(
            weight * float(lost @ table.of_class[priority])
            for priority, weight in weights.items()
            if weight and priority in table.of_class
        )


class ExpectedArrivals:
    """Streams of all models; those without a deadline lose nothing and are left out."""

    table: ClassVar[type[StreamTable]] = StreamTable

    def __init__(self, latency: LatencyModel) -> None:
        self._latency = latency
        self._streams: dict[tuple[int, int], _Stream] = {}
        self._table: StreamTable | None = None
        self.highest = inf
        """The highest class of all streams."""
        self.classes: frozenset[int] = frozenset()
        """Those of all streams."""

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
        differs = (request.rows, request.group) != (stream.rows, stream.group)
        stream.rows, stream.group = request.rows, request.group
        stream.allowed_ns += _ALLOWED_WEIGHT * (allowed_ns - stream.allowed_ns)
        stream.recent = 1.0 + stream.recent * exp(min(0, stream.last_ns - now_ns) / MEMORY_NS)
        stream.last_ns = max(stream.last_ns, now_ns)
        if self._table is not None:
            self._table.update(key, stream, differs=differs)

    def forget(self, source: int) -> None:
        """Expect nothing of a model that is gone."""
        for key in [key for key in self._streams if key[0] == source]:
            del self._streams[key]
        self._changed()

    def renew(self) -> None:
        """Follow the slowdowns and solo latencies that were learned."""
        if self._table is not None:
            self._table.renew()

    def of_class(self, priority: int) -> list[tuple[Source, int, int, float]]:
        """Model, rows, group and allowed time of each stream of a class."""
        streams = self._streams.values()
        return [(s.source, s.rows, s.group, s.allowed_ns) for s in streams if s.priority == priority]

    def forecast(self, sums: Sums, now_ns: int) -> ArrivalForecast | None:
        """The losses by a launch now, beside what contributes these sums; None: nothing is expected."""
        if not self._streams:
            return None
        if self._table is None:
            self._table = self.table(self._latency, self._streams)
        self._table.follow()
        return ArrivalForecast(self._table, sums, now_ns, steepness(self._latency.bound.multiplier))

    def _changed(self) -> None:
        self._table = None
        self.classes = frozenset(stream.priority for stream in self._streams.values())
        self.highest = min(self.classes, default=inf)
