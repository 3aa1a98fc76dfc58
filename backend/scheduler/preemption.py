"""Preemption: a batch that would miss its deadline by waiting for a free lane suspends one that runs. So does whatever
would wait for a batch of a lower class that has no deadline.

The suspended one makes its own deadline all the same, with the bound's margin, or misses it anyway, even without, or is
of a lower class; but what was launched some time ago is suspended only for as long as it still makes it, so that none
is suspended for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from math import inf
from typing import NamedTuple

from backend.scheduler.device_state import DeviceState
from backend.scheduler.forecast.launch_forecast import Choice, LaunchForecast
from backend.scheduler.latency_model import LatencyModel
from backend.scheduler.messages import Request
from backend.scheduler.running_batch import RunningBatch
from backend.scheduler.source import Source
from backend.scheduler.waiting import CLASS_NS
from predictor.slowdown_function import Sums

PATIENCE, PATIENCE_NS_MAX = 8.0, CLASS_NS
"""For so many times its predicted execution, at most for this long, a batch may be suspended whatever becomes of it."""
ABOVE_CLASS = 3.0
"""A batch of a higher class has at least so many times to spare what a lower one takes of it: those that come next must
still find their place."""
_LOOKED_AT = 32
"""Waiting requests of one model."""
_CANDIDATES = 2
"""Models."""

Beside = Callable[[Sums], LaunchForecast]
"""Makes the forecast of a candidate beside co-runners with these summed contributions."""
Members = Callable[[Iterable[Request], Source, LaunchForecast], tuple[Request, ...]]
"""Forms a batch: from the first request on, those that may share a batch with it."""


class Preemption(NamedTuple):
    """A launch, and the running batch that is suspended for it."""

    choice: Choice
    suspended: RunningBatch


class _Preemptible(NamedTuple):
    """A batch that could be suspended, and for how long without missing its deadline; inf: it misses it anyway; 0 also
    where it makes it by the prediction, but not with the margin. patient: it may be made to miss.
    """

    batch: RunningBatch
    spare_ns: float
    patient: bool

    def gives_way_to(self, priority: int, highest: int, takes_ns: float) -> bool:
        """True if a batch of that class may preempt it at all. highest: the class of the waiting requests."""
        return priority <= self.batch.priority or (priority <= highest and ABOVE_CLASS * takes_ns <= self.spare_ns)

    def is_best_effort_below(self, priority: int) -> bool:
        """True of a lower class without a deadline: it loses none by being suspended for whatever would else wait."""
        return self.batch.deadline_ns == inf and priority < self.batch.priority


class _FreeLane(NamedTuple):
    """A lane that will be free. place, executing: of the batch on it that is not suspended, among those that run."""

    free_in_ns: float
    place: int
    executing: RunningBatch


def choose_preemption(
    latency: LatencyModel,
    members: Members,
    beside: Beside,
    waiting: Mapping[int, Source],
    sources: Mapping[int, Source],
    device: DeviceState,
    now_ns: int,
) -> Preemption | None:
    """The next preemption, where all lanes are taken. waiting: of `sources`, those with requests that wait.

    A request that could wait is recognised beside all batches but the one that frees a lane first; a batch that may
    preempt is formed, in `_form`, beside all but the one that it would suspend.
    """
    candidates = _candidates(waiting, device.lanes)
    if not candidates:
        return None
    device.update_slowdowns()
    preemptible = _preemptible(latency, sources, device, now_ns)
    if not preemptible:
        return None
    free = _free_lanes(device)
    forecast = beside(device.sums_without(free[0].executing))
    highest = min((head.priority for s in waiting.values() if (head := s.queue.head()) is not None), default=0)
    for i, source in enumerate(candidates):
        waits_ns = free[min(i, len(free) - 1)].free_in_ns
        head = next(forecast.timely(source, islice(source.queue.by_rank(), _LOOKED_AT)), None)
        if head is None or source.solo.guesses(head.group):
            continue
        can_wait = forecast.makes_it(source, head, waits_ns)
        solo_ns = source.load(head.rows, head.group).solo_ns
        for other in preemptible:
            if can_wait and not other.is_best_effort_below(head.priority):
                continue
            if not other.gives_way_to(head.priority, highest, solo_ns):
                continue
            if (choice := _form(latency, members, beside, device, source, head, other)) is not None:
                return Preemption(choice, other.batch)
    return None


def _candidates(waiting: Mapping[int, Source], lanes: int) -> list[Source]:
    """Models whose batches can preempt others, the one with the first request first."""
    heads = [
        (source.queue.rank(head), source.id)
        for source in waiting.values()
        if _takes_part(source, lanes) and (head := source.queue.head()) is not None
    ]
    return [waiting[source] for _, source in sorted(heads)[:_CANDIDATES]]


def _takes_part(source: Source, lanes: int) -> bool:
    """True if its batches can preempt and be suspended; not beside transfers, which would go on."""
    join = source.join
    return join.interference_aware and lanes <= join.preemptible_lanes and source.bytes_per_row is None


def _preemptible(
    latency: LatencyModel, sources: Mapping[int, Source], device: DeviceState, now_ns: int
) -> list[_Preemptible]:
    """Those with most time to spare first."""
    found = []
    for batch in device.preemptible():
        if not batch.requests or not _takes_part(sources[batch.key[0]], device.lanes):
            continue
        allowed_ns = batch.deadline_ns - now_ns - latency.overhead_ns
        takes_ns = batch.remaining_ns * batch.slowdown
        spare_ns = max(0.0, allowed_ns / latency.bound.multiplier - takes_ns) if takes_ns <= allowed_ns else inf
        patient = now_ns < batch.launched_ns + min(PATIENCE * batch.times.predicted_ns, PATIENCE_NS_MAX)
        if patient or spare_ns < inf:
            found.append(_Preemptible(batch, spare_ns, patient))
    return sorted(found, key=lambda one: -one.spare_ns)


def _free_lanes(device: DeviceState) -> list[_FreeLane]:
    """All lanes, ordered by when they will be free; a preempting batch shares the lane of the suspended one."""
    places = {batch.key: place for place, batch in enumerate(device.batches)}
    preempting = {batch.suspended_for.key for batch in device.batches if batch.suspended_for is not None}
    found = []
    for batch in device.batches:
        if batch.key not in preempting:
            executing = batch.suspended_for or batch
            found.append(_FreeLane(batch.remaining_ns * batch.slowdown, places[executing.key], executing))
    return sorted(found)


def _form(
    latency: LatencyModel,
    members: Members,
    beside: Beside,
    device: DeviceState,
    source: Source,
    head: Request,
    other: _Preemptible,
) -> Choice | None:
    """As many requests of this model, from `head` on, as may preempt the other batch; None: none may."""
    forecast = beside(device.sums_without(other.batch))
    timely = forecast.timely(source, islice(source.queue.by_rank(), _LOOKED_AT))
    found = members(timely, source, forecast)
    count = forecast.fitting(source, found) if head in found[:1] else 0
    while count:
        choice = forecast.choice(source, found[:count], len(found))
        harmless = choice.times.predicted_ns + latency.overhead_ns <= other.spare_ns
        if harmless or (other.patient and choice.priority < other.batch.priority):
            return choice
        count //= 2
    return None
