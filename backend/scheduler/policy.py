"""Which waiting requests to launch next, as how large a batch, or to hold: admission by forecast.

Reads the state; keeps there how often it held and each model's knee, and here what late requests are owed. Nothing
depends on the kind of device.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from itertools import islice
from typing import ClassVar, NamedTuple

from backend.scheduler.device_state import Occupancy
from backend.scheduler.launch_forecast import Choice, Forecast, Kind
from backend.scheduler.messages import Request
from backend.scheduler.preemption import Urgent, overtake
from backend.scheduler.running_batches import MIN_SLOWDOWN
from backend.scheduler.state import Source
from backend.scheduler.waiting import CLASS_NS
from predictor.bound import UpperBound
from predictor.features import ZERO_SUMS, Own
from predictor.learners.learner import Forecaster
from predictor.slowdown_function import SlowdownFunction

LATE_SHARE = 0.05
LATE_SHARE_PER_S = 0.05
LATE_SHARE_MAX = 0.1
"""Of the lanes' time that goes to requests which are late, or were held too long, while others can still make it; it
grows with their wait, so that none starves, up to a share that keeps a lasting overload from making all late."""
OVERDUE_NS = CLASS_NS
"""A request that waits so long beyond its rank may harm running batches, in that same share of the lanes' time."""
NEARLY_BEST = 1.15
"""A batch grows only until its time per row is within this factor of the best that the profile promises."""
MAX_LOOKED_AT = 256
"""Waiting requests that are considered for one batch: bounds a decision however long the queue."""
MAX_CANDIDATES = 2
"""Held candidates per decision before the lane is left free until the next event."""
_OVERHEAD_STEP_NS = 20_000
_RESPONSES_MAX = 4096
"""Looked up between two lessons of the predictor's: rows are the callers' choice."""


class _Candidate(NamedTuple):
    """The request that a model's next batch would be formed around, ordered by rank."""

    rank: int
    source_id: int
    source: Source
    head: Request


class Policy:
    """Holds what the decisions learn from; see `backend.scheduler.core` for the state they are taken on."""

    late_share_max: ClassVar[float] = LATE_SHARE_MAX
    preempts: ClassVar[bool] = True

    def __init__(self, predictor: Forecaster, bound: UpperBound) -> None:
        self.predictor = predictor
        self.bound = bound
        self.overhead_ns = 0.0
        """Learned: from launch to finish, less the execution itself and the transfers around it."""
        self._credit_ns = 0.0
        self._responses: dict[Kind, SlowdownFunction] = {}

    def response(self, source: int, own: Own) -> SlowdownFunction:
        """The predictor's of a batch of this source, looked up once until `renew`."""
        key = (source, own.batch_size, own.load.solo_ns)
        known = self._responses.get(key)
        if known is None:
            if len(self._responses) >= _RESPONSES_MAX:
                self._responses.clear()
            known = self._responses[key] = self.predictor.slowdown_function(own)
        return known

    def renew(self) -> None:
        """The predictor has learned."""
        self._responses.clear()

    def choose(self, sources: Mapping[int, Source], occupancy: Occupancy, lane: int, now_ns: int) -> Choice | None:
        """The next launch, on this lane, which is free, or None: what waits is held.

        sources: those with requests that wait; occupancy: what runs, as of `now_ns`.
        """
        progress, contended = occupancy.progress, len(sources) > 1
        if not contended and not len(progress):
            (source,) = sources.values()
            if len(source.queue) == 1:
                return self._take_only(source)
        forecast = Forecast(self, progress, progress.sums(), now_ns, contended, occupancy.lanes.core(lane))
        in_order = _oldest(s for s in sources.values() if not s.join.interference_aware)
        timely, firsts = self._candidates(sources, forecast)
        late = self._late_source(sources)
        alone = not timely and in_order is None
        if late is not None and (choice := self._admit_late(late, alone, forecast)) is not None:
            return choice
        return self._choose_timely(in_order, timely or firsts, late, forecast)

    def overtake(
        self, waiting: Mapping[int, Source], sources: Mapping[int, Source], occupancy: Occupancy, now_ns: int
    ) -> Urgent | None:
        """The next batch that goes before another on its lane, where all lanes are taken; None: everybody waits.

        waiting: of `sources`, those with requests that wait; occupancy: what runs, as of `now_ns`.
        """
        return overtake(self, waiting, sources, occupancy, now_ns) if self.preempts else None

    def members(self, requests: Iterable[Request], source: Source, forecast: Forecast) -> tuple[Request, ...]:
        """From the first on, those that may share a batch with it, as large as it may grow."""
        return _same_group(requests, self._rows(source, forecast))

    def _take_only(self, source: Source) -> Choice:
        """One request on an idle device: whatever the forecast, it is launched."""
        request = source.queue.head() or source.queue.late_head()
        assert request is not None
        own, (in_ns, out_ns) = source.own(request.rows, request.group), source.work(request.rows)
        alone_ns = self.alone_ns(source, own)
        return Choice(source, (request,), own, alone_ns, "launch", round(in_ns), round(out_ns))

    def alone_ns(self, source: Source, own: Own) -> int:
        """The execution time predicted on an idle device."""
        slowdown = max(MIN_SLOWDOWN, self.response(source.id, own).slowdown(ZERO_SUMS))
        return max(1, round(own.load.solo_ns * slowdown))

    def _choose_timely(
        self, in_order: Source | None, candidates: list[_Candidate], late: Source | None, forecast: Forecast
    ) -> Choice | None:
        """Whichever arrived first: models that launch in order, or the first of the others that need not be held."""
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
            candidate.source.held(candidate.head)
        if choice is None and in_order is not None:
            choice = self._take_in_order(in_order, forecast)
        if choice is not None and owed is not None:
            self._save(owed, choice, forecast.now_ns)
        return choice

    def _save(self, owed: Request, choice: Choice, now_ns: int) -> None:
        """A launch that passed over someone: a share of its time is theirs."""
        waited_s = (now_ns - owed.arrival_ns) / 1e9
        share = min(self.late_share_max, LATE_SHARE + LATE_SHARE_PER_S * waited_s)
        self._credit_ns += share * choice.load.solo_ns

    def _paid(self, choice: Choice) -> Choice | None:
        """The launch, if what was saved suffices for it. Nothing saved outlives it: no burst follows a long hold."""
        if choice.load.solo_ns > self._credit_ns:
            return None
        self._credit_ns = min(self._credit_ns - choice.load.solo_ns, choice.load.solo_ns)
        return choice

    def _candidates(
        self, sources: Mapping[int, Source], forecast: Forecast
    ) -> tuple[list[_Candidate], list[_Candidate]]:
        """By rank: the first requests of models that can make it if launched now, as many as will be looked at; and
        each model's first, which matter where none can."""
        firsts = sorted(
            _Candidate(source.queue.rank(head), source.id, source, head)
            for source in sources.values()
            if source.join.interference_aware and (head := source.queue.head()) is not None
        )
        open_, timely = list(firsts), list[_Candidate]()
        while open_ and len(timely) < MAX_CANDIDATES:
            candidate = heappop(open_)
            source = candidate.source
            first = next(forecast.timely(source, islice(source.queue.by_rank(), MAX_LOOKED_AT)), None)
            if first is candidate.head:
                timely.append(candidate)
            elif first is not None:  # another model's may come before it
                heappush(open_, _Candidate(source.queue.rank(first), source.id, source, first))
        return timely, firsts

    def _late_source(self, sources: Mapping[int, Source]) -> Source | None:
        late = [(head.arrival_ns, s.id) for s in sources.values() if (head := s.queue.late_head()) is not None]
        return sources[min(late)[1]] if late else None

    def _take_in_order(self, source: Source, forecast: Forecast) -> Choice:
        """As a stock dynamic batcher: consecutive requests of one shape, as many as fit, at once."""
        requests = _same_group(source.queue.by_rank(), source.join.max_batch_size, consecutive=True)
        return forecast.choice(source, requests)

    def _admit(self, source: Source, forecast: Forecast) -> Choice | None:
        """The largest batch that keeps its own deadlines and harms nobody; None: hold."""
        rows = self._rows(source, forecast)
        timely = forecast.timely(source, islice(source.queue.by_rank(), MAX_LOOKED_AT))
        members = _same_group(timely, rows) or _same_group(source.queue.by_rank(), rows)
        if forecast.idle:
            return forecast.choice(source, members[: forecast.fitting(source, members)], len(members))
        choice = self._largest_harmless(source, members, forecast)
        return None if choice is None or forecast.better_later(choice) else choice

    def _largest_harmless(self, source: Source, members: tuple[Request, ...], forecast: Forecast) -> Choice | None:
        """Half as many again and again; where the least harms, a larger one does too."""
        count = forecast.fitting(source, members)
        largest = forecast.choice(source, members[:count], len(members))
        if not forecast.may_harm(largest):
            return largest
        choices = [largest]
        while (count := count // 2) > 0:
            choices.append(forecast.choice(source, members[:count], len(members)))
        forecast.follow(choices)
        if forecast.harms(choices[-1]):
            return None
        return next(choice for choice in choices if not forecast.harms(choice))

    def _rows(self, source: Source, forecast: Forecast) -> int:
        """How large a batch may grow: to the maximum where nobody else waits for the lane, else while it pays.

        It pays up to the smallest batch whose time per row comes close to the best: beyond it others wait for nothing.
        """
        most = source.join.max_batch_size
        if not forecast.contended or most < 2:
            return most
        # Looked up: the overhead moves little, so it is taken in steps.
        step = round(self.overhead_ns / _OVERHEAD_STEP_NS)
        if source.knee is None or source.knee[0] != step:
            source.knee = (step, knee(source, step * _OVERHEAD_STEP_NS))
        return source.knee[1]

    def _admit_late(self, source: Source, alone: bool, forecast: Forecast) -> Choice | None:
        """Those that missed already: at once where nobody else wants the lane, else from what was saved for them."""
        head = source.queue.late_head()
        assert head is not None
        if not alone and source.load(head.rows, head.group).solo_ns > self._credit_ns:
            return None  # too little was saved for even the smallest batch: no need to look further
        choice = forecast.choice(source, _same_group(source.queue.by_lateness(), self._rows(source, forecast)))
        if not alone and choice.load.solo_ns > self._credit_ns:
            return None
        harmless = forecast.idle or not forecast.harms(choice)
        if harmless and alone:
            return choice
        overdue = forecast.now_ns > source.queue.rank(head) + OVERDUE_NS
        return self._paid(choice) if harmless or overdue else None


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


def _same_group(requests: Iterable[Request], max_rows: int, *, consecutive: bool = False) -> tuple[Request, ...]:
    """From the first on, those that may share a batch with it, up to `max_rows` (0: the model does not batch)."""
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
