"""The router: what subscriptions and probes tell goes into the fleet, and requests are picked from it.

All of it runs in one thread, that of the event loop.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Sequence

from backend.fleet.decisions import NOT_FOUND, Picked, RouteRequest, Shed
from backend.fleet.endpoints import Endpoint, Fleet
from backend.fleet.pick import pick
from backend.fleet.snapshot import DeviceSnapshot
from backend.route_process.endpoints_file import Server
from backend.route_process.model_name import Asked
from backend.route_process.picker import Destinations, Refusal
from backend.route_process.probes import Probe
from backend.route_process.router_metrics import RouterMetrics
from backend.route_process.subscriptions import Subscription

ADDRESSES_MAX = 3
"""Given to Envoy, which tries the next where a connection is refused."""


class Router:
    """Picks for one file of endpoints. now: Unix time in nanoseconds."""

    def __init__(
        self, servers: Sequence[Server], metrics: RouterMetrics, now: Callable[[], int] = time.time_ns
    ) -> None:
        self.fleet = Fleet(Endpoint(server.name, server.http, server.state) for server in servers)
        self.probes = {server.name: Probe(server, self._gone) for server in servers}
        devices = sum(len(server.state) for server in servers)
        self.subscriptions = [
            Subscription(server, state, devices, self._observe, self._lost)
            for server in servers
            for state in server.state
        ]
        self._metrics, self._now = metrics, now
        self._turn = 0
        self._instance = secrets.token_hex(4)
        """In the marks of its picks: those of a router before it may still be answered."""

    async def run(self) -> None:
        """Stay informed until cancelled."""
        async with asyncio.TaskGroup() as group:
            for subscription in self.subscriptions:
                group.create_task(subscription.run())
            for probe in self.probes.values():
                group.create_task(probe.run())

    def route(self, asked: Asked) -> Destinations | Refusal:
        """Choose addresses for a request; none: Envoy goes by least request."""
        if not asked.model:
            return self._leave("no model named" if asked.infers else "not an inference")
        if not asked.infers:
            return self._without_a_pick(asked, "not an inference")
        began_ns = time.perf_counter_ns()
        now_ns = self._now()
        deadline_ns = None if asked.slo_ns is None else now_ns + asked.slo_ns
        request = RouteRequest(asked.model, asked.version, asked.rows, asked.priority, deadline_ns)
        found = pick(self.fleet, request, now_ns)
        self._metrics.pick_us.observe((time.perf_counter_ns() - began_ns) / 1e3)
        if found is None:
            return self._without_a_pick(asked, "nothing known")
        if isinstance(found, Shed):
            if found.status == NOT_FOUND and self._holders(asked):  # an ensemble, or of another backend
                return self._without_a_pick(asked, "not a model of Isochrone's")
            self._metrics.refused.labels(str(found.status)).inc()
            return Refusal(found.reason, found.status)
        self._metrics.picks.labels(found.endpoints[0]).inc()
        addresses = self._addresses(found.endpoints, over_grpc=asked.over_grpc)
        return Destinations(addresses, f"{self._instance}:{found.number}")

    def answered(self, pick: str) -> None:
        """Note that a request has its answer. pick: of its destinations; one of another router's is none of ours."""
        instance, _, number = pick.partition(":")
        if instance == self._instance and number.isdecimal():
            self._metrics.answered.inc()
            self.fleet.answered(Picked(int(number), (), ()), self._now())

    def failed(self) -> None:
        """Count a request that an error of ours left to Envoy."""
        self._leave("error")

    def is_ready(self) -> bool:
        """True where an endpoint takes requests."""
        now_ns = self._now()
        return any(self.fleet.is_fresh(name, now_ns) for name in self.probes)

    def refresh(self) -> None:
        """Bring the gauges up to date."""
        now_ns = self._now()
        for name in self.probes:
            self._metrics.up.labels(name).set(self.fleet.is_fresh(name, now_ns))
        for subscription in self.subscriptions:
            snapshot = subscription.snapshot
            if snapshot is not None:
                labels = subscription.server.name, snapshot.device
                self._metrics.backlog_ms.labels(*labels).set(snapshot.backlog_ns / 1e6)
                self._metrics.age_s.labels(*labels).set(max(0, now_ns - snapshot.at_ns) / 1e9)

    # Told by subscriptions and probes

    def _observe(self, server: str, snapshot: DeviceSnapshot) -> None:
        if self.probes[server].is_live:
            self.fleet.observe(server, snapshot, self._now())

    def _lost(self, server: str, device: str) -> None:
        self.fleet.lost(server, self._now(), device)

    def _gone(self, server: str) -> None:
        self.fleet.lost(server, self._now())

    # Inside

    def _leave(self, reason: str) -> Destinations:
        self._metrics.left.labels(reason).inc()
        return Destinations()

    def _without_a_pick(self, asked: Asked, reason: str) -> Destinations:
        """Any server that holds the model, where one is known."""
        self._turn += 1
        self._metrics.left.labels(reason).inc()
        return Destinations(self._addresses(self._holders(asked), over_grpc=asked.over_grpc))

    def _holders(self, asked: Asked) -> list[str]:
        """Servers that are live and hold a model, by turns."""
        held = [
            name for name, probe in self.probes.items() if probe.is_live and probe.holds(asked.model, asked.version)
        ]
        turn = self._turn % max(1, len(held))
        return held[turn:] + held[:turn]

    def _addresses(self, names: Iterable[str], *, over_grpc: bool) -> tuple[str, ...]:
        probes = [self.probes[name] for name in list(names)[:ADDRESSES_MAX]]
        return tuple(probe.grpc if over_grpc else probe.http for probe in probes)
