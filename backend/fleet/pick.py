"""Choice of an endpoint for one request: by its predicted finish there, and by what it does to others there.

At each device that holds the model

    finish = now + wait for a lane + solo latency of its batch × slowdown beside what runs then
    cost   = (finish − now) + OTHERS · (harm + work) + MISS_NS · its own chance to miss its deadline

The wait is what runs, and what is served before it of those that wait or are on their way, spread over the lanes;
requests of its model that wait there share its batch. Harm is what it adds to the batches that run, dearer where that
takes their slack, and to the requests that wait, as nanoseconds of others' latency. Work is the time that it adds to
the lanes: less where it joins a batch, and where the device is fast at its model. Requests to come pay for that.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import numpy as np

from backend.fleet.decisions import NOT_FOUND, UNAVAILABLE, Picked, RouteRequest, Shed
from backend.fleet.device_estimate import SLOWDOWN_MIN, rank_of
from backend.fleet.device_table import (
    ADDS,
    AT,
    ENDS,
    LEAST,
    LEFT,
    OVERHEAD,
    PRESSURE,
    QUEUED,
    RISK,
    ROWS,
    SUFFERS,
    WAITING,
    DeviceTable,
    Floats,
)
from backend.fleet.endpoints import Fleet
from backend.fleet.in_flight import RequestCost
from backend.fleet.model_table import HELD, JOINED, ModelTable, Selection
from backend.fleet.snapshot import ModelState

RANKED_MAX = 8
"""Endpoints in an answer: who routes tries the next where one is gone."""
MISS_NS = 100e6
"""Cost of a deadline that is missed, in nanoseconds of latency."""
OTHERS = 3.0
"""Weight of harm and work, against the request's own latency: at 1 fewer deadlines are kept."""
_LOOKED_AT = 4 * RANKED_MAX
"""Devices: some are of one endpoint."""
_SPREAD = 7919
"""Step by which equally good devices take turns: it shares no factor with their number."""


class PickForecast(NamedTuple):
    """Figures of one request at each of some devices, each (devices,), in nanoseconds from now on.

    duration: of its batch on a lane; work: time that it adds to the lanes; slowdown: of its batch.
    """

    finish: Floats
    harm: Floats
    work: Floats
    duration: Floats
    slowdown: Floats


def pick(fleet: Fleet, request: RouteRequest, now_ns: int) -> Picked | Shed | None:
    """Choose, and count the request as on its way to the first endpoint of the answer.

    None: no endpoint has sent its state of late, or a model that is not known may be at one that never has; who routes
    goes by its own rule then.
    """
    fleet.expire(now_ns)
    table, now = fleet.model(request.model, request.version), fleet.instant(now_ns)
    selection = None if table is None else table.selection(fleet.table, now)
    if table is None or selection is None or not len(selection.numbers):
        return _no_place(fleet, request, table, now_ns)
    due = inf if request.deadline_ns is None else fleet.instant(request.deadline_ns)
    forecast = forecast_at(fleet.table, table, selection, request, now, rank_of(due, request.priority, now))
    cost = _cost(forecast, None if request.deadline_ns is None else float(request.deadline_ns - now_ns))
    order = _order(cost, fleet.picks)
    devices, finishes = selection.numbers[order].tolist(), forecast.finish[order].tolist()
    number = fleet.sent(devices[0], request, _cost_at(forecast, order[0], table.states[devices[0]]), now_ns)
    names, ranked = fleet.names, dict[str, int]()
    for device, finish_ns in zip(devices, finishes, strict=True):
        ranked.setdefault(names[device], now_ns + int(finish_ns))
        if len(ranked) == RANKED_MAX:
            break
    return Picked(number, tuple(ranked), tuple(ranked.values()))


def _cost_at(forecast: PickForecast, place: int, state: ModelState) -> RequestCost:
    """Cost of the request at one of the devices."""
    suffers = state.sensitivity / float(forecast.slowdown[place])
    duration, work = float(forecast.duration[place]), float(forecast.work[place])
    return RequestCost(duration, work, state.pressure, suffers, state.max_batch_size)


def _no_place(fleet: Fleet, request: RouteRequest, table: ModelTable | None, now_ns: int) -> Shed | None:
    """Answer where no fresh device holds the model."""
    fresh = fleet.fresh_count(now_ns)
    if not fresh:
        return None
    shown = f"'{request.model}'" + (f" of version {request.version}" if request.version else "")
    if table is not None and table.facts[HELD].any():
        return Shed(f"every server that holds model {shown} is unavailable; try again later", UNAVAILABLE)
    if fresh < len(fleet.endpoints):
        return None
    return Shed(f"no server holds model {shown}", NOT_FOUND)


def forecast_at(
    table: DeviceTable, model: ModelTable, selection: Selection, request: RouteRequest, now: float, own_rank: float
) -> PickForecast:
    """Forecast of the request at each of the devices selected."""
    devices = selection.devices
    facts, running = table.facts[:, devices], table.running[:, :, devices]
    ranks, works = table.queue[:, : table.queue_used, devices]
    base, sensitivity, pressure, _, joined_rank = model.facts[:JOINED, selection.at]
    joined_ns, batch_ns, alone_ns = model.batches(selection, request.rows)
    lanes = running.shape[1]  # of the device with most; those that another lacks count as taken for ever
    total = np.add.reduce

    left = running[LEFT] - (now - facts[AT])
    idle = total(np.minimum(left, 0.0) * running[ENDS])  # less lane time since a lane became free
    np.maximum(left, running[LEAST], out=left)
    queued = np.maximum(0.0, facts[QUEUED] + idle)
    still = (queued + 1.0) / (facts[QUEUED] + 1.0)  # share of what waited that does still
    launched = still < 0.5
    if launched.any():
        joined_ns, batch_ns = joined_ns * ~launched, np.where(launched, alone_ns, batch_ns)

    before = total(works * (ranks <= np.minimum(joined_rank, own_rank)))  # what is served before
    before += idle
    before -= joined_ns
    starts = np.add.accumulate(left)
    starts += np.maximum(0.0, before)
    starts /= table.lane_numbers
    wait = np.minimum.reduce(starts)

    overlap = np.minimum(np.maximum(left - wait, 0.0), batch_ns)  # of the request's batch with each that runs
    free = np.maximum((lanes - 1.0) * batch_ns - total(overlap), 0.0)  # lane time beside it
    pressures = total(running[ADDS] * overlap)
    pressures += np.minimum(free, queued) * facts[PRESSURE]  # of what waits
    pressures /= batch_ns
    slowdown = np.maximum(base + sensitivity * pressures, SLOWDOWN_MIN)
    duration = batch_ns * slowdown + facts[OVERHEAD]
    work = duration - joined_ns * slowdown

    added = overlap * running[SUFFERS]  # to each that runs
    added *= slowdown * pressure
    harm = total(added * (running[ROWS] + (MISS_NS * running[RISK]) * added))
    harm += facts[WAITING] * still * work
    return PickForecast(wait + duration, harm, work, duration, slowdown)


def _cost(forecast: PickForecast, slack_ns: float | None) -> Floats:
    """Cost at each device; where no device keeps the deadline, that of the harm alone. slack_ns: until the deadline."""
    others = OTHERS * (forecast.harm + forecast.work)
    if slack_ns is None:
        return forecast.finish + others
    if forecast.finish.min() > slack_ns:
        return others
    chance = np.minimum(np.maximum(forecast.finish / max(slack_ns, 1.0) - 0.5, 0.0), 1.0)
    found: Floats = forecast.finish + others + MISS_NS * chance * chance
    return found


def _order(cost: Floats, picks: int) -> list[int]:
    """Places of the devices that cost least, in order, at most `_LOOKED_AT`; equally good ones take turns."""
    order: list[int] = cost.argsort(kind="stable")[:_LOOKED_AT].tolist()
    if len(order) > 1 and cost[order[0]] == cost[order[1]]:
        equal: list[int] = np.flatnonzero(cost == cost[order[0]]).tolist()
        first = equal[picks * _SPREAD % len(equal)]
        return [first, *[place for place in order if place != first]][:_LOOKED_AT]
    return order
