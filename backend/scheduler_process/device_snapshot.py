"""Describes a device to others by its scheduler's state: snapshots, and each model's part of the backlog.

Changes nothing that decides: what is looked up of the predictor is not kept there, so that decisions, and a replay of
them, are as if nobody had looked. Pure: time is an argument.

A model's part of the backlog, with r_b the predicted time until running batch b is done, and its waiting rows in
batches as large as they may grow, k of them, each alone on the device for solo_k,

    part = (Σ_b r_b + Σ_k (solo_k · slowdown + transfers_k + overhead)) / lanes

where the slowdown is that beside a mean set of lanes − 1 of the batches that run now. The parts add up to the predicted
time in which the device drains, which is not shorter than the longest r_b.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from math import inf
from typing import NamedTuple

import msgspec

from backend.fleet.snapshot import (
    FLEET_PROTOCOL,
    MAX_CLASSES,
    MAX_MODELS,
    MAX_RUNNING,
    MAX_SOLO_SIZES,
    DeviceSnapshot,
    MachineFacts,
    ModelState,
    RunningState,
)
from backend.scheduler.core import Scheduler
from backend.scheduler.device_state import DeviceState
from backend.scheduler.messages import DeviceLoad, Ping
from backend.scheduler.running_batch import MIN_SLOWDOWN, BatchKey
from backend.scheduler.source import Source
from predictor.features import Own
from predictor.slowdown_function import SHARES, Sums

_REMAINS = 0.05
"""Share of a batch's solo latency that is taken to remain at least, as in `RunningBatch.remaining_ns`."""
_READ_EVERY_NS = 200_000_000
"""What was learned changes slowly, and looking it up anew is most of a snapshot's cost."""
_KNOWN_MAX = 4 * MAX_MODELS
"""Models whose arrivals are remembered, loaded or not."""
_NANOSECONDS_MAX = 1 << 62
_ModelKey = tuple[str, str]
"""Name and version."""


class _Facts(NamedTuple):
    """Facts of a model that change slowly; see `ModelState`."""

    solo_ns: list[tuple[int, int]]
    base: float
    sensitivity: float
    pressure: float


class _Readings:
    """Readings of what was learned, as of one moment.

    The predictor is asked through a copy that shares all but what was looked up.
    """

    def __init__(self, scheduler: Scheduler, now_ns: int) -> None:
        self.now_ns, self.predictor = now_ns, scheduler.latency.predictor
        self._copy = copy(self.predictor)
        for name, value in getattr(self._copy, "__dict__", {}).items():
            if type(value) is dict:  # what it has looked up so far
                setattr(self._copy, name, dict(value))
        self._facts: dict[int, _Facts] = {}
        device = scheduler.device
        cores = {device.core_of(lane) for lane in range(device.lanes)} - {None}
        self._core_sharers = device.lanes / len(cores) - 1.0 if cores else 0.0
        """Other batches on a core while all lanes are taken, where lanes share cores."""

    def is_old(self, now_ns: int) -> bool:
        """True once it is time to read anew."""
        return not 0 <= now_ns - self.now_ns < _READ_EVERY_NS

    def slowdown(self, own: Own, sums: Sums) -> float:
        """Slowdown of a batch beside co-runners that contribute these sums, all lanes taken."""
        return max(MIN_SLOWDOWN, self._copy.slowdown_function(own).slowdown(sums, self._core_sharers))

    def facts(self, source: Source) -> _Facts:
        """Look up the facts of a source's model."""
        found = self._facts.get(source.id)
        if found is None:
            own = source.own(1, source.solo.latest_group)
            function, contribution = self._copy.slowdown_function(own), self._copy.contribution(own)
            found = _Facts(_solo(source), function.solo, function.gain, sum(contribution[SHARES:]))
            self._facts[source.id] = found
        return found


class DeviceDescription:
    """Describes one device. publisher: as in `DeviceSnapshot`."""

    def __init__(self, device: str, publisher: str) -> None:
        self._device, self._publisher = device, publisher
        self._sequence = 0
        self._arrivals: dict[_ModelKey, int] = {}
        """Requests by model, in the order of their last use."""
        self._readings: _Readings | None = None

    def arrived(self, source: Source, requests: int) -> None:
        """Count requests of a model."""
        if source.join.loading:
            return
        key = (source.join.model, source.join.version)
        self._arrivals[key] = self._arrivals.pop(key, 0) + requests
        if len(self._arrivals) > _KNOWN_MAX:
            del self._arrivals[next(iter(self._arrivals))]

    def backlog_ns(self, scheduler: Scheduler, source: Source, now_ns: int) -> int:
        """The source's part of the backlog."""
        readings, running_ns = self._current(scheduler, now_ns), 0.0
        if any(key[0] == source.id for key in scheduler.device.running):
            remaining = _remaining_ns(scheduler.device, now_ns)
            running_ns = sum(each_ns for key, each_ns in remaining.items() if key[0] == source.id)
        waiting_ns = _waiting_ns(scheduler, source, readings, _mean_sums(scheduler.device))
        return _rounded((running_ns + waiting_ns) / scheduler.device.lanes)

    def load(self, scheduler: Scheduler, source: Source, ask: Ping, now_ns: int) -> DeviceLoad:
        """Forecast for the source's next request."""
        device, readings, sums = scheduler.device, self._current(scheduler, now_ns), _mean_sums(scheduler.device)
        sources = scheduler.sources.values()
        waiting_ns = sum(_waiting_ns(scheduler, each, readings, sums, ask.priority) for each in sources)
        starts_ns = start_ns(_remaining_ns(device, now_ns).values(), waiting_ns, device.lanes)
        slowdown = readings.slowdown(source.own(1, source.solo.latest_group), sums)
        solo_ns = tuple(readings.facts(source).solo_ns)
        return DeviceLoad(ask.asks, now_ns, _rounded(starts_ns), solo_ns, slowdown)

    def snapshot(self, scheduler: Scheduler, now_ns: int, unix_ns: int) -> DeviceSnapshot:
        """The device now. now_ns, unix_ns: of the scheduler's clock, and Unix time."""
        self._sequence += 1
        device, readings = scheduler.device, self._current(scheduler, now_ns)
        remaining = _remaining_ns(device, now_ns)
        sums = _mean_sums(device)
        waiting_ns = sum(_waiting_ns(scheduler, source, readings, sums) for source in scheduler.sources.values())
        drained_ns = (sum(remaining.values()) + waiting_ns) / device.lanes
        busy = {key[0] for key in device.running}
        return DeviceSnapshot(
            protocol=FLEET_PROTOCOL,
            publisher=self._publisher,
            sequence=self._sequence,
            at_ns=unix_ns,
            device=self._device,
            lanes=device.lanes,
            machine=_machine(self._device, scheduler.sources.values()),
            backlog_ns=_rounded(max(drained_ns, *remaining.values(), 0.0)),
            models=[self._model(sources, readings) for sources in self._by_model(scheduler, busy)],
            running=_running(scheduler, remaining, now_ns),
            overhead_ns=_rounded(scheduler.latency.overhead_ns),
        )

    def _by_model(self, scheduler: Scheduler, busy: set[int]) -> list[list[Source]]:
        """Sources of each model, those with work first, then by their last use."""
        models: dict[_ModelKey, list[Source]] = {}
        for source in scheduler.sources.values():
            if source.join.loading:
                continue
            models.setdefault((source.join.model, source.join.version), []).append(source)
        used = [key for key in reversed(self._arrivals) if key in models]
        order = dict.fromkeys((*used, *models))
        works = {key for key in order if any(source.queue or source.id in busy for source in models[key])}
        ordered = [*(key for key in order if key in works), *(key for key in order if key not in works)]
        return [models[key] for key in ordered[:MAX_MODELS]]

    def _model(self, sources: list[Source], readings: _Readings) -> ModelState:
        join, facts = sources[0].join, readings.facts(sources[0])
        return ModelState(
            name=join.model,
            version=join.version,
            max_batch_size=max(1, join.max_batch_size),
            arrivals=self._arrivals.get((join.model, join.version), 0),
            waiting=_by_class(sources),
            waiting_requests=sum(len(each.queue) for each in sources),
            solo_ns=facts.solo_ns,
            base=facts.base,
            sensitivity=facts.sensitivity,
            pressure=facts.pressure,
            slo_ns=join.slo_ns,
            instances=len(sources),
        )

    def _current(self, scheduler: Scheduler, now_ns: int) -> _Readings:
        known = self._readings
        if known is None or known.predictor is not scheduler.latency.predictor or known.is_old(now_ns):
            known = self._readings = _Readings(scheduler, now_ns)
        return known


def _mean_sums(device: DeviceState) -> Sums:
    """Contributions of a mean set of lanes − 1 of the batches that run now; of all where fewer run."""
    share = min(1.0, (device.lanes - 1) / max(1, len(device.running)))
    return tuple([share * total for total in device.sums()])


def start_ns(remaining_ns: Iterable[float], waiting_ns: float, lanes: int) -> float:
    """Time until a lane is free behind what runs and what waits, whose batches go to the lane that is free first.

    remaining_ns: of each batch that runs; of more than there are lanes some are suspended, and wait as well.
    """
    ends_ns = sorted(remaining_ns, reverse=True)
    waiting_ns += sum(ends_ns[lanes:])
    ends_ns = sorted([*ends_ns[:lanes], *[0.0] * (lanes - len(ends_ns))])
    level_ns = 0.0
    for used in range(1, lanes + 1):
        level_ns = (waiting_ns + sum(ends_ns[:used])) / used
        if used < lanes and level_ns <= ends_ns[used]:
            break
    return level_ns


def _waiting_ns(
    scheduler: Scheduler, source: Source, readings: _Readings, sums: Sums, lowest_class: float = inf
) -> float:
    """Time of all batches that its waiting requests of these classes make, one after the other. sums: of their
    co-runners.
    """
    rows = sum(count for priority, count in source.queue.rows.items() if priority <= lowest_class)
    if not rows:
        return 0.0
    group = source.solo.latest_group
    most = max(1, source.join.max_batch_size if source.knee is None else source.knee[1])
    full, rest = divmod(rows, most)
    batches = [(source.own(most, group), full)] if full else []
    if rest:
        batches.append((source.own(rest, group), 1))
    slowdown = readings.slowdown(batches[0][0], sums)
    overhead_ns = scheduler.latency.overhead_ns
    return sum(
        count * (own.load.solo_ns * slowdown + sum(source.solo_transfers(own.batch_size)) + overhead_ns)
        for own, count in batches
    )


def _remaining_ns(device: DeviceState, now_ns: int) -> dict[BatchKey, float]:
    """Predicted time from now until each batch is done, beside what runs."""
    device.update_slowdowns()
    as_of_ns = device.as_of_ns
    found = {}
    for key, batch in device.running.items():
        times = batch.times
        left_ns = batch.remaining_ns * batch.slowdown + max(0, batch.launched_ns + times.h2d_ns - as_of_ns)
        left_ns += times.d2h_ns - (now_ns - as_of_ns)
        found[key] = max(left_ns, _REMAINS * batch.load.solo_ns)
    return found


def _running(scheduler: Scheduler, remaining: Mapping[BatchKey, float], now_ns: int) -> list[RunningState]:
    found = []
    for key, batch in list(scheduler.device.running.items())[:MAX_RUNNING]:
        slack_ns = None
        if batch.deadline_ns < inf:
            end_ns = now_ns + remaining[key] + scheduler.latency.overhead_ns
            slack_ns = round(max(-_NANOSECONDS_MAX, min(_NANOSECONDS_MAX, batch.deadline_ns - end_ns)))
        model = scheduler.sources[key[0]].join.model
        found.append(RunningState(model, batch.rows, batch.priority, _rounded(remaining[key]), slack_ns))
    return found


def _solo(source: Source) -> list[tuple[int, int]]:
    """Solo latencies with transfers: of 1 row, of the largest batch, and of profiled sizes between."""
    most, group = max(1, source.join.max_batch_size), source.solo.latest_group
    sizes = sorted({1, most, *(size for size in source.join.profile.batch_sizes if size < most)})
    if (last := len(sizes) - 1) >= MAX_SOLO_SIZES:
        sizes = [sizes[round(i * last / (MAX_SOLO_SIZES - 1))] for i in range(MAX_SOLO_SIZES)]
    return [(size, _alone_ns(source, source.own(size, group))) for size in sizes]


def _alone_ns(source: Source, own: Own) -> int:
    return _rounded(own.load.solo_ns + sum(source.solo_transfers(own.batch_size)))


def _by_class(sources: Iterable[Source]) -> dict[str, int]:
    """Waiting rows by class; those of classes beyond the `MAX_CLASSES`th count as of that one."""
    rows: dict[int, int] = {}
    for source in sources:
        for priority, count in source.queue.rows.items():
            rows[priority] = rows.get(priority, 0) + count
    classes = sorted(rows)
    found = {str(priority): rows[priority] for priority in classes[:MAX_CLASSES]}
    for priority in classes[MAX_CLASSES:]:
        found[str(classes[MAX_CLASSES - 1])] += rows[priority]
    return found


def _machine(device: str, sources: Iterable[Source]) -> MachineFacts:
    """The hardware as a model's process described it."""
    for source in sources:
        if source.join.machine:
            try:
                return msgspec.json.decode(source.join.machine, type=MachineFacts)
            except (msgspec.MsgspecError, ValueError):
                continue
    return MachineFacts(name=device, emulated=device.startswith("emulated-"))


def _rounded(duration_ns: float) -> int:
    return min(_NANOSECONDS_MAX, max(0, round(duration_ns)))
