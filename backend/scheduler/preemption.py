"""Which batch goes before another on its lane: one that would miss its deadline by waiting for a free lane.

The other stands still meanwhile. It is one that makes its own deadline all the same, with the bound's margin, or misses
it anyway, even without, or is of a lower class; but what was launched some time ago only for as long as it still makes
it, so that none stands for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from math import inf
from typing import NamedTuple

from backend.scheduler.device_state import Occupancy
from backend.scheduler.latency_model import LatencyModel
from backend.scheduler.launch_forecast import Choice, Forecast
from backend.scheduler.messages import Request
from backend.scheduler.running_batches import Going, Progress
from backend.scheduler.state import Source
from backend.scheduler.waiting import CLASS_NS

PATIENCE, PATIENCE_NS_MAX = 8.0, CLASS_NS
"""For so many times its predicted execution, at most for this long, a batch may stand still whatever becomes of it."""
ABOVE_CLASS = 3.0
"""A batch of a higher class has at least so many times to spare what a lower one takes of it: those that come next must
still find their place."""
_LOOKED_AT = 32
"""Waiting requests of one model."""
_CANDIDATES = 2
"""Models."""


FormBatch = Callable[[Iterable[Request], Source, Forecast], tuple[Request, ...]]
"""`Policy.members`."""


class Urgent(NamedTuple):
    """A launch in front of a lane."""

    choice: Choice
    lane: int


class _Yielding(NamedTuple):
    """A batch that could stand still, and for how long without missing its deadline; inf: it misses it anyway; 0 also
    where it makes it by the prediction, but not with the margin.

    place: among those that run. patient: it may be made to miss.
    """

    lane: int
    place: int
    going: Going
    spare_ns: float
    patient: bool

    def yields_to(self, priority: int, highest: int, takes_ns: float) -> bool:
        """Whether a batch of that class may go before it at all. highest: the class of those that wait."""
        return priority <= self.going.priority or (priority <= highest and ABOVE_CLASS * takes_ns <= self.spare_ns)


class _Free(NamedTuple):
    """When a lane will be free, from now on. moving: the place, among those that run, of what does not stand still on
    it."""

    free_ns: float
    moving: int


def overtake(
    latency: LatencyModel,
    members: FormBatch,
    waiting: Mapping[int, Source],
    sources: Mapping[int, Source],
    occupancy: Occupancy,
    now_ns: int,
) -> Urgent | None:
    """The next such batch, where all lanes are taken. waiting: of `sources`, those with requests that wait.

    Whether it could wait is asked beside all but what frees a lane first; whether it may go, in `_before`, beside all
    but the one that would stand still for it.
    """
    progress, lanes = occupancy.progress, occupancy.lanes
    candidates = _in_turn(waiting, lanes.count)
    if not candidates:
        return None
    progress.set_pace()
    yielding = _yielding(latency, sources, occupancy, now_ns)
    if not yielding:
        return None
    free = sorted(_free(progress))
    forecast = Forecast(latency, progress, progress.sums_without(free[0].moving), now_ns, contended=True)
    highest = min((head.priority for s in waiting.values() if (head := s.queue.head()) is not None), default=0)
    for turn, source in enumerate(candidates):
        waits_ns = free[min(turn, len(free) - 1)].free_ns
        head = next(forecast.timely(source, islice(source.queue.by_rank(), _LOOKED_AT)), None)
        if head is None or head.deadline_ns is None or source.solo.guesses(head.group):
            continue
        if forecast.makes_it(source, head, waits_ns):
            continue
        solo_ns = source.load(head.rows, head.group).solo_ns
        for batch in yielding:
            if not batch.yields_to(head.priority, highest, solo_ns):
                continue
            if (choice := _before(latency, members, source, head, batch, progress, now_ns)) is not None:
                return Urgent(choice, lanes.count + batch.lane)
    return None


def _in_turn(waiting: Mapping[int, Source], lanes: int) -> list[Source]:
    """Models whose batches can go before others, the one with the first request first."""
    heads = [
        (source.queue.rank(head), source.id)
        for source in waiting.values()
        if _takes_part(source, lanes) and (head := source.queue.head()) is not None
    ]
    return [waiting[source] for _, source in sorted(heads)[:_CANDIDATES]]


def _takes_part(source: Source, lanes: int) -> bool:
    """Whether its batches go before others and stand still for them; not beside transfers, which would go on."""
    join = source.join
    return join.interference_aware and lanes <= join.preemptible_lanes and source.cargo is None


def _yielding(
    latency: LatencyModel, sources: Mapping[int, Source], occupancy: Occupancy, now_ns: int
) -> list[_Yielding]:
    """Those with most time to spare first."""
    progress, count = occupancy.progress, occupancy.lanes.count
    places = {batch.key: (place, batch) for place, batch in enumerate(progress.batches)}
    found = []
    for running in occupancy.unhindered():
        if not running.requests or not _takes_part(sources[running.key[0]], count):
            continue
        place, going = places[running.key]
        allowed_ns = going.deadline_ns - now_ns - latency.overhead_ns
        takes_ns = going.remaining_ns * going.pace
        spare_ns = max(0.0, allowed_ns / latency.bound.multiplier - takes_ns) if takes_ns <= allowed_ns else inf
        patient = now_ns < running.launched_ns + min(PATIENCE * running.predicted_ns, PATIENCE_NS_MAX)
        if patient or spare_ns < inf:
            found.append(_Yielding(running.lane, place, going, spare_ns, patient))
    return sorted(found, key=lambda batch: -batch.spare_ns)


def _free(progress: Progress) -> list[_Free]:
    """Every lane; that of a batch which goes before another is the other's."""
    places = {id(batch): place for place, batch in enumerate(progress.batches)}
    fronts = {id(batch.front) for batch in progress.batches}
    return [
        _Free(batch.remaining_ns * batch.pace, places[id(batch.front or batch)])
        for batch in progress.batches
        if id(batch) not in fronts
    ]


def _before(
    latency: LatencyModel,
    form: FormBatch,
    source: Source,
    head: Request,
    batch: _Yielding,
    progress: Progress,
    now_ns: int,
) -> Choice | None:
    """As many requests of this model, from `head` on, as may go before that batch; None: none may."""
    beside = Forecast(latency, progress, progress.sums_without(batch.place), now_ns, contended=True)
    timely = beside.timely(source, islice(source.queue.by_rank(), _LOOKED_AT))
    members = form(timely, source, beside)
    count = beside.fitting(source, members) if head in members[:1] else 0
    while count:
        choice = beside.choice(source, members[:count], len(members))
        harmless = choice.predicted_ns + latency.overhead_ns <= batch.spare_ns
        if harmless or (batch.patient and _class(choice.requests) < batch.going.priority):
            return choice
        count //= 2
    return None


def _class(requests: tuple[Request, ...]) -> int:
    return min(request.priority for request in requests)
