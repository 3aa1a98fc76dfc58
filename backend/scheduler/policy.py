"""Admission by forecast: the waiting requests to launch next, as how large a batch, or to hold.

Reads the state; keeps there the holds and each model's knee, and here the credit of late requests. Nothing depends on
the kind of device.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from itertools import islice
from math import inf
from typing import ClassVar, NamedTuple

from backend.scheduler.class_prices import ClassPrices
from backend.scheduler.device_state import DeviceState
from backend.scheduler.forecast.expected_arrivals import ExpectedArrivals
from backend.scheduler.forecast.launch_forecast import Choice, LaunchForecast
from backend.scheduler.latency_model import LatencyModel
from backend.scheduler.messages import Request
from backend.scheduler.preemption import Preemption, choose_preemption
from backend.scheduler.source import Source
from backend.scheduler.waiting import CLASS_NS
from predictor.slowdown_function import Sums

LATE_SHARE = 0.05
LATE_SHARE_PER_S = 0.05
LATE_SHARE_MAX = 0.1
"""Share of the lanes' time for requests which are late, or were held too long, while others can still make it; it grows
with their wait, so that none starves, up to a share that keeps a lasting overload from making all late."""
OVERDUE_NS = CLASS_NS
"""A request that waits so long beyond its rank may harm running batches, in that same share of the lanes' time."""
NEARLY_BEST = 1.15
"""A batch grows only until its time per row is within this factor of the best that the profile promises."""
MAX_LOOKED_AT = 256
"""Waiting requests that are considered for one batch: bounds a decision however long the queue."""
MAX_CANDIDATES = 4
"""Held candidates per decision before the lane is left free until the next event."""
_OVERHEAD_STEP_NS = 20_000
OWN_PRICE = 2.5
"""A deadline of its own class, out of those of requests to come, in deadlines of a launch's own: who is slowed holds a
lane for longer, and slows others in turn, which the forecast does not follow. Chosen such that with one class more
lanes of an emulated GPU keep no fewer deadlines (`python -m benchmarks.emulated.priorities --classes 1`)."""
IDLE_NS_MAX = 25_000_000
"""An idle device is held so long, at most, for requests of higher classes that are expected."""


class _Candidate(NamedTuple):
    """The request that a model's next batch would be formed around, ordered by rank."""

    rank: int
    source: Source
    head: Request


class Policy:
    """Chooses the launches, by the latency model; see `backend.scheduler.core` for the state they are chosen on."""

    late_share_max: ClassVar[float] = LATE_SHARE_MAX
    preempts: ClassVar[bool] = True
    forecast: type[LaunchForecast] = LaunchForecast
    """What each decision asks; to explain decisions, one that takes notes."""
    expected: type[ExpectedArrivals] = ExpectedArrivals

    def __init__(self, latency: LatencyModel) -> None:
        self.latency = latency
        self.arrivals = self.expected(latency)
        self.prices = ClassPrices()
        self.idle_until_ns = inf
        """Until then an idle device holds what waits, for a higher class; inf: it holds nothing."""
        self._credit_ns = 0.0

    def choose(self, sources: Mapping[int, Source], device: DeviceState, lane: int, now_ns: int) -> Choice | None:
        """The next launch, on this lane, which is free, or None: what waits is held.

        sources: those with requests that wait; device: as of `now_ns`.
        """
        contended = len(sources) > 1
        if not contended and not device.running:
            (source,) = sources.values()
            if len(source.queue) == 1 and (only := self._take_only(source)).priority <= self.arrivals.highest:
                return only
        core = device.core_of(lane)
        forecast = self.forecast(self.latency, device, device.sums(), now_ns, contended=contended, core=core)
        in_order = _oldest(s for s in sources.values() if not s.join.interference_aware)
        timely = self._candidates(sources, forecast)
        late = self._late_source(sources)
        unopposed = in_order is None and all(_gives_way(candidate.head, late) for candidate in timely)
        if late is not None and (choice := self._admit_late(late, unopposed, forecast)) is not None:
            return choice
        return self._choose_timely(in_order, timely or self._untimely(sources), late, forecast)

    def preempt(
        self, waiting: Mapping[int, Source], sources: Mapping[int, Source], device: DeviceState, now_ns: int
    ) -> Preemption | None:
        """The next launch that preempts a running batch, where all lanes are taken; None: what waits is held.

        waiting: of `sources`, those with requests that wait; device: as of `now_ns`.
        """
        if not self.preempts:
            return None

        def forecast_with(sums: Sums) -> LaunchForecast:
            return self.forecast(self.latency, device, sums, now_ns, contended=True)

        return choose_preemption(self.latency, self.members, forecast_with, waiting, sources, device, now_ns)

    def members(self, requests: Iterable[Request], source: Source, forecast: LaunchForecast) -> tuple[Request, ...]:
        """Form a batch as large as it may grow: of the first request, and those that may share a batch with it."""
        return _same_group(requests, self._rows(source, forecast))

    def _take_only(self, source: Source) -> Choice:
        """Launch the only request on an idle device, whatever the forecast."""
        request = source.queue.head() or source.queue.late_head()
        assert request is not None
        own = source.own(request.rows, request.group)
        return Choice(source, (request,), own, self.latency.solo_times(source, own))

    def _choose_timely(
        self, in_order: Source | None, candidates: list[_Candidate], late: Source | None, forecast: LaunchForecast
    ) -> Choice | None:
        """Launch whichever arrived first: of models in order, or the first of the others that need not be held."""
        owed = None if late is None else late.queue.late_head()
        choice: Choice | None = None
        if in_order is not None and not any(c.head.arrival_ns < _head(in_order).arrival_ns for c in candidates[:1]):
            choice = self._take_in_order(in_order, forecast)
        for candidate in [] if choice else candidates[:MAX_CANDIDATES]:
            if (choice := self._admit(candidate.source, forecast)) is not None:
                break
            if forecast.now_ns > candidate.rank + OVERDUE_NS:
                owed = owed or candidate.head
                if (choice := self._paid(forecast.choice(candidate.source, (candidate.head,)))) is not None:
                    return choice
            candidate.source.hold(candidate.head)
        if choice is None and in_order is not None:
            choice = self._take_in_order(in_order, forecast)
        if choice is not None and owed is not None:
            self._credit(owed, choice, forecast.now_ns)
        return choice

    def _credit(self, owed: Request, choice: Choice, now_ns: int) -> None:
        """Credit late requests with a share of the time of a launch that passed them over."""
        waited_s = (now_ns - owed.arrival_ns) / 1e9
        share = min(self.late_share_max, LATE_SHARE + LATE_SHARE_PER_S * waited_s)
        self._credit_ns += share * choice.times.solo_ns

    def _paid(self, choice: Choice) -> Choice | None:
        """The launch, if the credit suffices for it. No credit outlives it: no burst follows a long hold."""
        if choice.times.solo_ns > self._credit_ns:
            return None
        self._credit_ns = min(self._credit_ns - choice.times.solo_ns, choice.times.solo_ns)
        return choice

    def _candidates(self, sources: Mapping[int, Source], forecast: LaunchForecast) -> list[_Candidate]:
        """First requests of models, by rank, that can make it if launched now: as many as will be looked at."""
        open_ = self._firsts(sources)  # sorted, so a heap
        timely: list[_Candidate] = []
        while open_ and len(timely) < MAX_CANDIDATES:
            rank, source_id = heappop(open_)
            source = sources[source_id]
            first = next(forecast.timely(source, islice(source.queue.by_rank(), MAX_LOOKED_AT)), None)
            if first is not None and (of_first := source.queue.rank(first)) != rank:
                heappush(open_, (of_first, source_id))  # another model's may come before it
            elif first is not None:
                timely.append(_Candidate(rank, source, first))
        return timely

    def _untimely(self, sources: Mapping[int, Source]) -> list[_Candidate]:
        """First requests of models, by rank, where none can make it: as many as will be looked at."""
        firsts = self._firsts(sources)[:MAX_CANDIDATES]
        return [_Candidate(rank, sources[source], _head(sources[source])) for rank, source in firsts]

    def _firsts(self, sources: Mapping[int, Source]) -> list[tuple[int, int]]:
        """Rank and model of first requests, in order."""
        return sorted(
            [
                (rank, source.id)
                for source in sources.values()
                if source.join.interference_aware and (rank := source.queue.head_rank()) is not None
            ]
        )

    def _late_source(self, sources: Mapping[int, Source]) -> Source | None:
        late = [(head.arrival_ns, s.id) for s in sources.values() if (head := s.queue.late_head()) is not None]
        return sources[min(late)[1]] if late else None

    def _take_in_order(self, source: Source, forecast: LaunchForecast) -> Choice:
        """Launch like a stock dynamic batcher: consecutive requests of one shape, as many as fit, at once."""
        requests = _same_group(source.queue.by_rank(), source.join.max_batch_size, consecutive=True)
        return forecast.choice(source, requests)

    def _admit(self, source: Source, forecast: LaunchForecast) -> Choice | None:
        """The largest batch that keeps its own deadlines and makes no running batch miss; None: hold."""
        rows = self._rows(source, forecast)
        timely = forecast.timely(source, islice(source.queue.by_rank(), MAX_LOOKED_AT))
        members = _same_group(timely, rows) or _same_group(source.queue.by_rank(), rows)
        if forecast.idle:
            fitting = forecast.choice(source, members[: forecast.fitting(source, members)], len(members))
            return self._most_worth(fitting, forecast) or self._unless_held_idle(fitting, forecast)
        largest = self._largest_harmless(source, members, forecast)
        if largest is None or forecast.better_later(largest):
            return None
        return self._most_worth(largest, forecast)

    def _most_worth(self, largest: Choice, forecast: LaunchForecast) -> Choice | None:
        """The one, by halving, that keeps most deadlines: its own, less those of requests to come; None: none does.

        A deadline of its own class counts as one, of a higher class as its price; lower classes count nothing.
        """
        priority, idle = largest.priority, forecast.idle
        if idle and priority <= self.arrivals.highest:
            return largest
        weights = {c: self.prices.price(c) for c in self.arrivals.classes if c < priority}
        if not idle or weights:
            weights[priority] = 0.0 if idle else OWN_PRICE
        best, most, choice, count = None, 0.0, largest, len(largest.requests)
        while True:
            lost = forecast.expected_loss(choice, self.arrivals, weights)
            worth = forecast.expected_gain(choice) - lost
            if worth > most or (best is None and lost == 0.0):
                best, most = choice, worth
            count //= 2
            if count <= most:  # it cannot keep more than it has
                return best
            choice = forecast.choice(largest.source, largest.requests[:count], count + 1)

    def _unless_held_idle(self, choice: Choice, forecast: LaunchForecast) -> Choice | None:
        """The launch, once the device has been held idle for it for long enough."""
        if forecast.now_ns >= self.idle_until_ns:
            return choice
        self.idle_until_ns = min(self.idle_until_ns, forecast.now_ns + IDLE_NS_MAX)
        return None

    def _largest_harmless(
        self, source: Source, members: tuple[Request, ...], forecast: LaunchForecast
    ) -> Choice | None:
        """The largest, by halving, that makes no running batch miss; where the least does, a larger one does too."""
        count = forecast.fitting(source, members)
        largest = forecast.choice(source, members[:count], len(members))
        if not forecast.may_harm(largest):
            return largest
        choices = [largest]
        while (count := count // 2) > 0:
            choices.append(forecast.choice(source, members[:count], len(members)))
        forecast.compute_timelines(choices)
        if forecast.harms(choices[-1]):
            return None
        return next(choice for choice in choices if not forecast.harms(choice))

    def _rows(self, source: Source, forecast: LaunchForecast) -> int:
        """Rows that a batch may grow to: the maximum where no other model waits for the lane, else while it pays.

        It pays up to the smallest batch whose time per row comes close to the best: beyond it others wait for nothing.
        """
        most = source.join.max_batch_size
        if not forecast.contended or most < 2:
            return most
        # Looked up: the overhead moves little, so it is taken in steps.
        step = round(self.latency.overhead_ns / _OVERHEAD_STEP_NS)
        if source.knee is None or source.knee[0] != step:
            source.knee = (step, knee(source, step * _OVERHEAD_STEP_NS))
        return source.knee[1]

    def _admit_late(self, source: Source, unopposed: bool, forecast: LaunchForecast) -> Choice | None:
        """Launch late requests: at once where nothing wants the lane that could lose by it, else from their credit."""
        head = source.queue.late_head()
        assert head is not None
        if not unopposed and source.load(head.rows, head.group).solo_ns > self._credit_ns:
            return None  # too little credit for even the smallest batch: no need to look further
        choice = forecast.choice(source, _same_group(source.queue.by_lateness(), self._rows(source, forecast)))
        unopposed = unopposed and self._may_be_late(choice, forecast)
        if not unopposed and choice.times.solo_ns > self._credit_ns:
            return None
        harmless = forecast.idle or not forecast.harms(choice)
        if harmless and unopposed:
            return choice
        overdue = forecast.now_ns > source.queue.rank(head) + OVERDUE_NS
        return self._paid(choice) if harmless or overdue else None

    def _may_be_late(self, choice: Choice, forecast: LaunchForecast) -> bool:
        """True unless it would cost higher classes more deadlines than it answers requests."""
        weights = {c: self.prices.price(c) for c in self.arrivals.classes if c < choice.priority}
        if not weights:
            return True
        weights[choice.priority] = 0.0
        if forecast.expected_loss(choice, self.arrivals, weights) <= len(choice.requests):
            return True
        return forecast.idle and self._unless_held_idle(choice, forecast) is not None


def knee(source: Source, overhead_ns: int) -> int:
    """The smallest batch, in rows, whose time per row is within `NEARLY_BEST` of the best, whatever its shape."""

    def per_row_ns(rows: int) -> float:
        return (source.load(rows, None).solo_ns + overhead_ns) / rows

    # Between two profiled sizes the time per row only falls or only rises, so that few sizes need a look.
    most = source.join.max_batch_size
    sizes = [*(size for size in source.join.profile.batch_sizes if size < most), most]
    good_enough = min(map(per_row_ns, sizes)) * NEARLY_BEST
    i = next(i for i, size in enumerate(sizes) if per_row_ns(size) <= good_enough)
    between = range(sizes[i - 1] + 1 if i else 1, sizes[i])
    return between.start + bisect_left(between, True, key=lambda rows: per_row_ns(rows) <= good_enough)


def _gives_way(request: Request, late: Source | None) -> bool:
    """True if a request of a lower class without a deadline, which loses none by it, goes after this late one."""
    head = None if late is None else late.queue.late_head()
    return head is not None and request.deadline_ns is None and head.priority < request.priority


def _same_group(requests: Iterable[Request], max_rows: int, *, consecutive: bool = False) -> tuple[Request, ...]:
    """The first request and those that may share a batch with it, up to `max_rows` (0: the model does not batch)."""
    taken: list[Request] = []
    rows = 0
    for request in islice(requests, MAX_LOOKED_AT):
        if taken and (request.group != taken[0].group or rows + request.rows > max_rows):
            if consecutive or rows >= max_rows:
                break
            continue
        taken.append(request)
        rows += request.rows
        if rows >= max_rows:
            break
    return tuple(taken)


def _head(source: Source) -> Request:
    head = source.queue.head()
    assert head is not None
    return head


def _oldest(sources: Iterable[Source]) -> Source | None:
    waiting = [(head.arrival_ns, s.id, s) for s in sources if (head := s.queue.head()) is not None]
    return min(waiting, key=lambda w: w[:2])[2] if waiting else None
