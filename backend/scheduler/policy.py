"""Which waiting requests to launch next, as how large a batch, or to hold: admission by forecast.

Reads the state, changes only hold counts and which requests are late. Nothing here depends on the kind of device.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from backend.scheduler.forecast import MIN_SLOWDOWN, Progress, forecast_finishes
from backend.scheduler.messages import Request
from backend.scheduler.state import BatchKey, Running, Source
from backend.scheduler.waiting import CLASS_NS
from predictor.bound import UpperBound
from predictor.colocation import Colocation
from predictor.rls import RlsPredictor
from predictor.workload import Load

LATE_SHARE = 0.05
LATE_SHARE_PER_S = 0.05
LATE_SHARE_MAX = 0.25
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

_CANDIDATE: BatchKey = (-1, 0)
_NOBODY = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Choice:
    """A batch to launch."""

    source: Source
    requests: tuple[Request, ...]
    load: Load
    predicted_ns: int
    decision: Literal["launch", "split"] = "launch"


class _Candidate(NamedTuple):
    """The request that a model's next batch would be formed around, ordered by rank."""

    rank: int
    source_id: int
    source: Source
    head: Request


class Policy:
    """Holds what the decisions learn from; see `backend.scheduler.core` for the state they are taken on."""

    def __init__(self, predictor: RlsPredictor, bound: UpperBound) -> None:
        self.predictor = predictor
        self.bound = bound
        self.overhead_ns = 0.0
        """Learned: from launch to finish, less the execution itself."""
        self._credit_ns = 0.0

    def choose(
        self,
        sources: Mapping[int, Source],
        running: Mapping[BatchKey, Running],
        colocation: Colocation,
        now_ns: int,
    ) -> Choice | None:
        """The next launch, for which a lane is free, or None: nothing waits, or what waits is held."""
        waiting = [s for s in sources.values() if s.queue]
        if not running and len(waiting) == 1 and len(waiting[0].queue) == 1:
            return self._take_only(waiting[0])
        contended = len(waiting) > 1
        forecast = _Forecast(self, running, colocation, now_ns, contended)
        in_order = _oldest(s for s in sources.values() if not s.join.interference_aware)
        timely, doubtful = self._candidates(sources, forecast)
        late = self._late_source(sources)
        alone = not timely and in_order is None
        if late is not None and (choice := self._admit_late(late, alone, forecast)) is not None:
            return choice
        return self._choose_timely(in_order, timely or doubtful, late, forecast)

    def _take_only(self, source: Source) -> Choice:
        """One request on an idle device: whatever the forecast, it is launched."""
        request = source.queue.head() or source.queue.late_head()
        assert request is not None
        load = source.load(request.rows)
        return Choice(source, (request,), load, self.alone_ns(load))

    def alone_ns(self, load: Load) -> int:
        """The execution time predicted on an idle device."""
        return max(1, round(load.solo_ns * self.predictor.predict_one(load, _NOBODY)))

    def _choose_timely(
        self, in_order: Source | None, candidates: list[_Candidate], late: Source | None, forecast: _Forecast
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
        share = min(LATE_SHARE_MAX, LATE_SHARE + LATE_SHARE_PER_S * waited_s)
        self._credit_ns += share * choice.load.solo_ns

    def _paid(self, choice: Choice) -> Choice | None:
        """The launch, if what was saved suffices for it. Nothing saved outlives it: no burst follows a long hold."""
        if choice.load.solo_ns > self._credit_ns:
            return None
        self._credit_ns = min(self._credit_ns - choice.load.solo_ns, choice.load.solo_ns)
        return choice

    def _candidates(
        self, sources: Mapping[int, Source], forecast: _Forecast
    ) -> tuple[list[_Candidate], list[_Candidate]]:
        """Each model's first request that can make it if launched now, by rank; and where none can, its first."""
        timely, doubtful = [], []
        for source in sources.values():
            if not source.join.interference_aware:
                continue
            self._find_late(source, forecast.now_ns)
            for request in islice(source.queue.by_rank(), MAX_LOOKED_AT):
                if not forecast.misses(source, request):
                    timely.append(_Candidate(source.queue.rank(request), source.id, source, request))
                    break
            else:
                if (head := source.queue.head()) is not None:
                    doubtful.append(_Candidate(source.queue.rank(head), source.id, source, head))
        return sorted(timely), sorted(doubtful)

    def _find_late(self, source: Source, now_ns: int) -> None:
        """Requests that would miss even alone on the device no longer stand before those that can make it."""
        while (next_due := source.queue.earliest_due()) is not None and is_late(source, next_due, now_ns):
            source.queue.give_up(next_due)

    def _late_source(self, sources: Mapping[int, Source]) -> Source | None:
        late = [(head.arrival_ns, s.id) for s in sources.values() if (head := s.queue.late_head()) is not None]
        return sources[min(late)[1]] if late else None

    def _take_in_order(self, source: Source, forecast: _Forecast) -> Choice:
        """As a stock dynamic batcher: consecutive requests of one shape, as many as fit, at once."""
        requests = _same_group(source.queue.by_rank(), source.join.max_batch_size, consecutive=True)
        return forecast.choice(source, requests)

    def _admit(self, source: Source, forecast: _Forecast) -> Choice | None:
        """The largest batch that keeps its own deadlines and harms nobody; None: hold."""
        rows = self._rows(source, forecast)
        looked_at = islice(source.queue.by_rank(), MAX_LOOKED_AT)
        timely = (r for r in looked_at if not forecast.misses(source, r))
        members = _same_group(timely, rows) or _same_group(source.queue.by_rank(), rows)
        if forecast.idle:
            return forecast.choice(source, members[: forecast.fitting(source, members)], len(members))
        count = forecast.fitting(source, members)
        while count > 0:
            choice = forecast.choice(source, members[:count], len(members))
            if not forecast.harms(choice):
                return None if forecast.better_later(choice) else choice
            count //= 2
        return None

    def _rows(self, source: Source, forecast: _Forecast) -> int:
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

    def _admit_late(self, source: Source, alone: bool, forecast: _Forecast) -> Choice | None:
        """Those that missed already: at once where nobody else wants the lane, else from what was saved for them."""
        head = source.queue.late_head()
        assert head is not None
        if not alone and source.load(head.rows).solo_ns > self._credit_ns:
            return None  # too little was saved for even the smallest batch: no need to look further
        choice = forecast.choice(source, _same_group(source.queue.by_lateness(), self._rows(source, forecast)))
        harmless = forecast.idle or not forecast.harms(choice)
        if harmless and alone:
            return choice
        overdue = forecast.now_ns > source.queue.rank(head) + OVERDUE_NS
        return self._paid(choice) if harmless or overdue else None


class _Forecast:
    """The timeline at one instant: of the running batches alone, and with a candidate beside them."""

    def __init__(
        self,
        policy: Policy,
        running: Mapping[BatchKey, Running],
        colocation: Colocation,
        now_ns: int,
        contended: bool,
    ) -> None:
        self._policy, self._running, self.now_ns = policy, running, now_ns
        self._predictor, self._margin = policy.predictor, policy.bound.multiplier
        self._progress = _progress(running.values(), policy.predictor, colocation, now_ns)
        self._pressure = sum([p.pressure for p in self._progress])
        self._baseline: dict[BatchKey, float] | None = None
        self._with: tuple[Choice, dict[BatchKey, float]] | None = None
        self.idle = not running
        self.contended = contended

    def choice(self, source: Source, requests: tuple[Request, ...], available: int | None = None) -> Choice:
        """A launch of these requests, with the execution predicted beside what runs now."""
        load = source.load(sum(r.rows for r in requests))
        split = available is not None and len(requests) < available
        predicted_ns = max(1, round(load.solo_ns * self._slowdown(load)))
        return Choice(source, requests, load, predicted_ns, "split" if split else "launch")

    def misses(self, source: Source, request: Request) -> bool:
        """Whether the request is predicted to miss its deadline if it is launched now, in a batch of its own."""
        if request.deadline_ns is None:
            return False
        load = source.load(request.rows)
        return self._expected_ns(load.solo_ns * self._slowdown(load)) > request.deadline_ns

    def fitting(self, source: Source, members: tuple[Request, ...]) -> int:
        """How many of `members`, from the first, meet the tightest deadline among them; at least 1."""
        rows, fits, tightest = 0, 1, None
        for i, request in enumerate(members):
            rows += request.rows
            tightest = _tighter(tightest, request.deadline_ns)
            load = source.load(rows)
            if tightest is None or self._ends_ns(load.solo_ns * self._slowdown(load)) <= tightest:
                fits = i + 1
        return fits

    def harms(self, choice: Choice) -> bool:
        """Whether a running batch of the same or a higher class that makes its deadline newly misses it."""
        priority = min(r.priority for r in choice.requests)
        threatened = self._threatened(priority, self._predictor.pressure(choice.load.features))
        if not threatened:
            return False
        after = self._beside(choice)
        missing = [(key, due) for key, due in threatened if self._ends_ns(after[key]) > due]
        return bool(missing) and any(self._ends_ns(self._alone()[key]) <= due for key, due in missing)

    def _threatened(self, priority: int, pressure: float) -> list[tuple[BatchKey, int]]:
        """The batches for which the timeline matters: they would make it alone, but not if nobody beside them finished.

        A finish slows nobody down, since no pressure is below 0.
        """
        worst = self._pressure + pressure
        return [
            (b.key, due)
            for b, p in zip(self._running.values(), self._progress, strict=True)
            if b.priority <= priority
            and (due := b.deadline_ns) is not None
            and self._ends_ns(p.remaining_ns * max(MIN_SLOWDOWN, p.base)) <= due
            and self._ends_ns(p.remaining_ns * max(MIN_SLOWDOWN, p.base - p.pressure + worst)) > due
        ]

    def better_later(self, choice: Choice) -> bool:
        """Whether the batch misses its deadline launched now, but makes it launched at the next finish."""
        deadline_ns = None
        for request in choice.requests:
            deadline_ns = _tighter(deadline_ns, request.deadline_ns)
        if deadline_ns is None or self._ends_ns(choice.predicted_ns) <= deadline_ns:
            return False
        if self._ends_ns(self._beside(choice)[_CANDIDATE]) <= deadline_ns:
            return False
        first, at_ns = min(self._alone().items(), key=lambda item: item[1])
        pressure = self._pressure - sum(p.pressure for p in self._progress if p.key == first)
        exec_ns = choice.load.solo_ns * max(MIN_SLOWDOWN, self._predictor.base(choice.load) + pressure)
        return self._ends_ns(at_ns + exec_ns) <= deadline_ns

    def _slowdown(self, load: Load) -> float:
        return max(MIN_SLOWDOWN, self._predictor.base(load) + self._pressure)

    def _ends_ns(self, predicted_ns: float) -> float:
        """The instant that a span from now is over by, with the bound's margin and the cost around it."""
        return self.now_ns + predicted_ns * self._margin + self._policy.overhead_ns

    def _expected_ns(self, predicted_ns: float) -> float:
        return self.now_ns + predicted_ns + self._policy.overhead_ns

    def _alone(self) -> dict[BatchKey, float]:
        if self._baseline is None:
            self._baseline = forecast_finishes(self._progress)
        return self._baseline

    def _beside(self, choice: Choice) -> dict[BatchKey, float]:
        if self._with is None or self._with[0] is not choice:
            base, pressure = self._predictor.base(choice.load), self._predictor.pressure(choice.load.features)
            candidate = Progress(_CANDIDATE, choice.load.solo_ns, base, pressure)
            self._with = (choice, forecast_finishes([*self._progress, candidate]))
        return self._with[1]


def _progress(
    running: Iterable[Running], predictor: RlsPredictor, colocation: Colocation, now_ns: int
) -> list[Progress]:
    """How much of each batch's solo latency is left, by the slowdown it suffered so far."""
    base_of, pressure_of, suffered_by = predictor.base, predictor.pressure, colocation.suffered
    found = []
    for batch in running:
        load, solo_ns = batch.load, batch.load.solo_ns
        base = base_of(load)
        slowdown = base + pressure_of(suffered_by(batch.key))
        left = solo_ns - (now_ns - batch.launched_ns) / (slowdown if slowdown > MIN_SLOWDOWN else MIN_SLOWDOWN)
        # A batch that outlives its prediction is taken to be nearly done: there is nothing better to go by.
        least = solo_ns * 0.05
        found.append(Progress(batch.key, left if left > least else least, base, pressure_of(load.features)))
    return found


def knee(source: Source, overhead_ns: int) -> int:
    """The smallest batch, in rows, whose time per row is within `NEARLY_BEST` of the best."""

    def per_row_ns(rows: int) -> float:
        return (source.load(rows).solo_ns + overhead_ns) / rows

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


def is_late(source: Source, request: Request, now_ns: int) -> bool:
    """Whether a request would miss even if it ran alone on the device from `now_ns` on."""
    return request.deadline_ns is not None and now_ns + source.load(request.rows).solo_ns > request.deadline_ns


def _head(source: Source) -> Request:
    head = source.queue.head()
    assert head is not None
    return head


def _oldest(sources: Iterable[Source]) -> Source | None:
    waiting = [(head.arrival_ns, s.id, s) for s in sources if (head := s.queue.head()) is not None]
    return min(waiting, key=lambda w: w[:2])[2] if waiting else None


def _tighter(a: int | None, b: int | None) -> int | None:
    if a is None or b is None:
        return a if b is None else b
    return min(a, b)
