"""A reference that knows all arrivals and the law: the best rival's schedule, improved by local search. Emulated.

The search goes from window to window. In each it tries schedules that differ in one batch or two, and takes one that
keeps more deadlines by the window's end and some time after it, if it does so until the last answer too. What it finds
is a schedule that exists, not the best one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from math import inf
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from backend.load.arrivals import Arrival
from benchmarks.gpu_emulated.clairvoyant.replay import PlannedBatch, Replay, Schedule
from benchmarks.gpu_emulated.drawn_gpu import BATCH_MAX, DrawnGpu
from benchmarks.gpu_emulated.plan import SearchEffort

_SHIFT_NS = 3e6
"""Standard deviation of how far a batch is moved in time."""


class FoundSchedule(NamedTuple):
    """start_kept: deadlines kept by the schedule that it started from; met: requests in the end, of those that count;
    tried: schedules.
    """

    start_kept: int
    met: list[int]
    tried: int


class ClairvoyantSearch:
    """Search on one draw. plan: all requests; those from counted_from_s on count, whatever their class."""

    def __init__(
        self,
        drawn: DrawnGpu,
        plan: Sequence[Arrival],
        lanes: int,
        counted_from_s: float,
        effort: SearchEffort,
        seed: int = 0,
    ) -> None:
        self._plan, self._models, self._effort = plan, drawn.by_name, effort
        self._from_ns = counted_from_s * 1e9
        self._stream = np.random.default_rng(seed)
        self._replay = Replay(drawn, plan, lanes, counted_from_s)
        self._moves: tuple[Callable[[Schedule, float], Schedule | None], ...] = (
            self._serve, self._serve, self._join, self._join, self._replace, self._shift, self._shift, self._drop,
            self._drop_missed,
        )  # fmt: skip
        self._missed: frozenset[int] = frozenset()
        self._tried = 0

    def improve(self, start: Schedule) -> FoundSchedule:
        """Improve a schedule. start: ascending; of batches that each hold requests that have arrived by
        then.
        """
        effort, replay = self._effort, self._replay
        rest = start
        start_kept = replay.copy().run(rest, inf).deadlines
        end_ns = self._from_ns + effort.seconds * 1e9
        until_ns = self._from_ns
        while True:
            replay.run(rest, until_ns)
            rest = replay.waiting
            if until_ns >= end_ns:
                break
            until_ns += effort.window_s * 1e9
            rest = self._improve_window(rest, until_ns)
        replay.run(rest, inf)
        met = [i for i in replay.met if self._plan[i].at_s * 1e9 >= self._from_ns]
        return FoundSchedule(start_kept, met, self._tried)

    def _improve_window(self, rest: Schedule, until_ns: float) -> Schedule:
        """Schedule from now on, which differs only in batches planned until then."""
        ahead_ns = until_ns + self._effort.ahead_s * 1e9
        best, kept = rest, self._simulate(rest, ahead_ns)
        for _ in range(self._effort.tries):
            move = self._moves[int(self._stream.integers(len(self._moves)))]
            tried = move(best, until_ns)
            if tried is None:
                continue
            self._tried += 1
            found = self._replay.copy().run(tried, ahead_ns)
            if found > kept:
                best, kept = tried, self._simulate(tried, ahead_ns)
        better = best is not rest and self._replay.copy().run(best, inf) > self._replay.copy().run(rest, inf)
        return best if better else rest

    def _simulate(self, schedule: Schedule, until_ns: float) -> tuple[int, float]:
        """Kept by a schedule; its misses are remembered."""
        replay = self._replay.copy()
        kept = replay.run(schedule, until_ns)
        self._missed = frozenset(replay.missed)
        return kept

    # Moves: a schedule that differs from the given one up to `until_ns`, or None

    def _serve(self, rest: Schedule, until_ns: float) -> Schedule | None:
        """A request that nothing serves, in a batch of its own."""
        request = self._unserved(rest, until_ns)
        return None if request is None else _with(rest, self._alone(request, until_ns))

    def _join(self, rest: Schedule, until_ns: float) -> Schedule | None:
        """The same, in another batch of its model, which waits for it."""
        request = self._unserved(rest, until_ns)
        if request is None:
            return None
        arrival = self._plan[request]
        at_ns = _arrival_ns(arrival)
        due_ns = at_ns + arrival.slo_ms * 1e6
        open_ = [b for b in rest if b.model == arrival.model and b.at_ns < due_ns and len(b.requests) < BATCH_MAX]
        if not open_:
            return None
        old = open_[int(self._stream.integers(len(open_)))]
        joined = PlannedBatch(max(old.at_ns, at_ns), old.model, (*old.requests, request))
        return _with([b for b in rest if b is not old], joined)

    def _replace(self, rest: Schedule, until_ns: float) -> Schedule | None:
        """The same in the place of another batch."""
        request, dropped = self._unserved(rest, until_ns), self._any(rest, until_ns)
        if request is None or dropped is None:
            return None
        return _with([b for b in rest if b is not dropped], self._alone(request, until_ns))

    def _shift(self, rest: Schedule, until_ns: float) -> Schedule | None:
        """A batch earlier or later."""
        batch = self._any(rest, until_ns)
        if batch is None:
            return None
        arrived_ns = max(_arrival_ns(self._plan[i]) for i in batch.requests)
        at_ns = max(arrived_ns, round(self._replay.now_ns), batch.at_ns + round(self._stream.normal(0.0, _SHIFT_NS)))
        return _with([b for b in rest if b is not batch], batch._replace(at_ns=at_ns))

    def _drop(self, rest: Schedule, until_ns: float) -> Schedule | None:
        """One request less."""
        batch = self._any(rest, until_ns)
        if batch is None:
            return None
        dropped = batch.requests[int(self._stream.integers(len(batch.requests)))]
        return _without(rest, frozenset((dropped,)))

    def _drop_missed(self, rest: Schedule, until_ns: float) -> Schedule | None:  # noqa: ARG002 - a move's call
        """Without all that is answered late."""
        return _without(rest, self._missed) if any(self._missed.intersection(b.requests) for b in rest) else None

    def _any(self, rest: Schedule, until_ns: float) -> PlannedBatch | None:
        """A batch of the window."""
        count = next((i for i, b in enumerate(rest) if b.at_ns >= until_ns), len(rest))
        return rest[int(self._stream.integers(count))] if count else None

    def _unserved(self, rest: Schedule, until_ns: float) -> int | None:
        """A request that could still be served, and is not."""
        now_ns = self._replay.now_ns
        taken = {i for batch in rest for i in batch.requests} | self._replay.taken
        found = [
            i
            for i, arrival in enumerate(self._plan)
            if i not in taken
            and _arrival_ns(arrival) < until_ns
            and _arrival_ns(arrival) + arrival.slo_ms * 1e6 - self._models[arrival.model].solo_ns(1) > now_ns
        ]
        return found[int(self._stream.integers(len(found)))] if found else None

    def _alone(self, request: int, until_ns: float) -> PlannedBatch:
        """A batch of one, at any time that may do."""
        arrival = self._plan[request]
        first_ns = max(_arrival_ns(arrival), self._replay.now_ns)
        last_ns = _arrival_ns(arrival) + arrival.slo_ms * 1e6 - self._models[arrival.model].solo_ns(1)
        at_ns = self._stream.uniform(first_ns, max(first_ns, min(last_ns, until_ns)))
        return PlannedBatch(round(at_ns), arrival.model, (request,))


def _arrival_ns(arrival: Arrival) -> int:
    return round(arrival.at_s * 1e9)


def _with(rest: Schedule, batch: PlannedBatch) -> Schedule:
    found = rest.copy()
    insort(found, batch, key=attrgetter("at_ns"))
    return found


def _without(rest: Schedule, dropped: frozenset[int]) -> Schedule:
    fewer = [b._replace(requests=tuple(i for i in b.requests if i not in dropped)) for b in rest]
    return [b for b in fewer if b.requests]
