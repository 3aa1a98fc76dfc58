"""A fleet in virtual time: each device with its own production scheduler, and one router in front of all."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import partial
from math import inf
from random import Random
from typing import NamedTuple

import msgspec

from backend.fleet.decisions import RouteRequest
from backend.fleet.snapshot import DeviceSnapshot
from backend.load.arrivals import Arrival
from backend.scheduler.core import Scheduler
from backend.scheduler_process.device_snapshot import DeviceDescription
from backend.simulation.simulator import DeviceRun
from benchmarks.fleet.layout import OVERHEAD_NS, FleetLayout
from benchmarks.fleet.routers import EPOCH_NS, FleetRouter


class SnapshotTiming(msgspec.Struct, frozen=True):
    """Snapshots as the router gets them: one of each device every `age_ms`, `age_ms` / 2 on the way, so that they are
    `age_ms` old in the mean; lost: the share that never comes.
    """

    age_ms: float = 100.0
    lost: float = 0.0


class RoutedRequest(NamedTuple):
    """A request and what became of it. answered_s: inf where it was rejected, or not answered by the end."""

    arrival: Arrival
    device: int
    answered_s: float


class FleetRun:
    """One run. lanes: of each device; rejects: `on_miss: reject`."""

    def __init__(
        self, layout: FleetLayout, router: FleetRouter, lanes: int, timing: SnapshotTiming, *, rejects: bool = False
    ) -> None:
        self._layout, self._router, self._timing = layout, router, timing
        self._stream = Random(layout.seed)
        self.schedulers = [Scheduler(lanes) for _ in layout.gpus]
        gpus = [layout.device(d) for d in range(len(layout.gpus))]
        router.watch(self.schedulers, gpus)
        self.devices = [
            DeviceRun(
                [model.simulated(gpu, rejects) for model in layout.held_by(d)],
                self.schedulers[d],
                gpus[d],
                OVERHEAD_NS,
                partial(self._over, d),
            )
            for d, gpu in enumerate(layout.gpus)
        ]
        self._descriptions = [DeviceDescription(f"emulated-{gpu}-{d}", f"p{d}") for d, gpu in enumerate(layout.gpus)]
        self._events: list[tuple[float, int, int, DeviceSnapshot | None]] = []
        """(time in ns, order, device, snapshot): it arrives; without one it is to be made, or something happens on
        the device, where the order is −1."""
        self._order = 0
        self._numbers: list[list[int]] = [[] for _ in layout.gpus]
        """Numbers of requests, by device, in the order of their arrivals there."""
        self._sent: list[tuple[Arrival, int]] = []
        self._answered_s: list[float] = []
        self.snapshots = 0
        self._routing = True
        """Requests are still to come, so that snapshots have a reader."""
        self._due = [inf] * len(layout.gpus)
        """Time of the next event of a device by itself."""
        if router.needs_snapshots:
            for d in range(len(layout.gpus)):
                self._push(self._stream.random() * timing.age_ms * 1e6, d)

    def run(self, plan: Sequence[Arrival], end_s: float) -> list[RoutedRequest]:
        """Send the whole plan, and let devices run until the end, in seconds."""
        for number, arrival in enumerate(plan):
            now_ns = round(arrival.at_s * 1e9)
            self._until(now_ns)
            due_ns = EPOCH_NS + now_ns + round(arrival.slo_ms * 1e6)
            request = RouteRequest(arrival.model, priority=arrival.priority, deadline_ns=due_ns)
            device = self._router.route(number, request, EPOCH_NS + now_ns)
            self._sent.append((arrival, device))
            self._answered_s.append(inf)
            self._numbers[device].append(number)
            self._arrive(device, arrival)
        self._routing = False
        self._until(round(end_s * 1e9))
        return [RoutedRequest(*sent, s) for sent, s in zip(self._sent, self._answered_s, strict=True)]

    def _arrive(self, device: int, arrival: Arrival) -> None:
        self.devices[device].arrive(arrival)
        source = self.schedulers[device].sources[self.devices[device].source_of(arrival.model)]
        self._descriptions[device].arrived(source, 1)
        self._wake(device)

    def _until(self, end_ns: int) -> None:
        """Let happen all that does up to that instant."""
        while self._events and self._events[0][0] <= end_ns:
            at_ns, kind, device, snapshot = heapq.heappop(self._events)
            if kind == -1:
                if at_ns == self._due[device]:
                    self._due[device] = inf
                    self.devices[device].until(round(at_ns))
                    self._wake(device)
            elif not self._routing:
                continue
            elif snapshot is not None:
                self._router.observe(device, snapshot, EPOCH_NS + round(at_ns))
            else:
                self._publish(device, at_ns)

    def _publish(self, device: int, at_ns: float) -> None:
        age_ns, now_ns = self._timing.age_ms * 1e6, round(at_ns)
        snapshot = self._descriptions[device].snapshot(self.schedulers[device], now_ns, EPOCH_NS + now_ns)
        self.snapshots += 1
        if self._stream.random() >= self._timing.lost:
            self._push(at_ns + age_ns / 2, device, snapshot)
        self._push(at_ns + age_ns, device)

    def _push(self, at_ns: float, device: int, snapshot: DeviceSnapshot | None = None) -> None:
        self._order += 1
        heapq.heappush(self._events, (at_ns, self._order, device, snapshot))

    def _wake(self, device: int) -> None:
        """Note when a device's next event is."""
        next_ns = self.devices[device].next_ns
        if next_ns is not None and next_ns != self._due[device]:
            self._due[device] = next_ns
            heapq.heappush(self._events, (next_ns, -1, device, None))

    def _over(self, device: int, request: int, now_ns: int) -> None:
        number = self._numbers[device][request]
        if self.devices[device].ran.requests[request].answered_s is not None:
            self._answered_s[number] = now_ns / 1e9
        self._router.over(number, device, EPOCH_NS + now_ns)
