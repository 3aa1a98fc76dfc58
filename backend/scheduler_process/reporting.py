"""Tells others of the device: subscribers by snapshots, models' processes their backlog and what they suffered.

Runs on the scheduler's thread, after decisions were sent, and only as often as needed. A bug here costs a report.
"""

from __future__ import annotations

import logging
import secrets
import time
from math import inf

from msgspec.structs import replace

from backend.errors import ConfigError
from backend.fleet.snapshot import MIN_INTERVAL_NS
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import INTERFERENCE_MODELS_MAX, Arrive, Decided, DeviceLoad, Event, Ping, Take
from backend.scheduler.source import Source
from backend.scheduler_process.device_snapshot import DeviceDescription
from backend.scheduler_process.state_address import state_address_of_environment
from backend.scheduler_process.state_publisher import StatePublisher

_REPORT_EVERY_NS = 100_000_000
"""Between two reports to a model's process, which exports them more seldom."""
_OVERDUE_NS = 1_000_000_000
"""A report that no message came along for goes by itself."""
_IDLE_EVERY_NS = 400_000_000
"""Between two snapshots while nothing happens: earlier than `MAX_INTERVAL_NS`, for the way to a subscriber."""
_log = logging.getLogger("isochrone.scheduler")


class DeviceReporter:
    """publisher: of snapshots; None: to nobody."""

    def __init__(self, device: str, publisher: StatePublisher | None = None) -> None:
        self._description = DeviceDescription(device, secrets.token_hex(8))
        self._publisher = publisher
        self._reported_ns: dict[int, int] = {}
        """Time of the last report, by source."""
        self._suffered_ns: dict[int, dict[str, int]] = {}
        """Interference that was reported, by source and by who caused it."""
        self._overdue_ns = 0
        """Time of the last look for what is overdue."""
        self._warned = False
        self._published_ns = 0
        self._changed = True

    def note(self, scheduler: Scheduler, source: int, event: Event) -> None:
        """Note an event that was handled."""
        self._changed = True
        if isinstance(event, Arrive):
            self._description.arrived(scheduler.sources[source], len(event.requests))
        elif isinstance(event, Take):
            self._description.arrived(scheduler.sources[source], 1)

    def left(self, source: int) -> None:
        """Note that a model's process is gone."""
        self._changed = True
        self._reported_ns.pop(source, None)
        self._suffered_ns.pop(source, None)

    def with_report(self, decided: Decided, scheduler: Scheduler, source: int, now_ns: int) -> Decided:
        """The same message to a source, with a report to its process if it is time for one."""
        if now_ns - self._reported_ns.get(source, 0) < _REPORT_EVERY_NS or source not in scheduler.sources:
            return decided
        self._reported_ns[source] = now_ns
        try:
            found = scheduler.sources[source]
            backlog_ns = self._description.backlog_ns(scheduler, found, now_ns)
            self._warn(scheduler)
            suffered = self._suffered_since(found)
        except Exception:
            _log.exception("a model's process could not be reported to")
            return decided
        return replace(decided, backlog_ns=backlog_ns, interference=suffered)

    def overdue(self, scheduler: Scheduler, now_ns: int) -> list[tuple[int, Decided]]:
        """Reports to processes that suffered interference and got no message since, by source."""
        if now_ns - self._overdue_ns < _OVERDUE_NS:
            return []
        self._overdue_ns = now_ns
        quiet = [s for s in scheduler.sources.values() if now_ns - self._reported_ns.get(s.id, 0) >= _OVERDUE_NS]
        reports = ((source.id, Decided((), 0, interference=self._suffered_since(source))) for source in quiet)
        return [(source, decided) for source, decided in reports if decided.interference]

    def _suffered_since(self, source: Source) -> tuple[tuple[str, int], ...]:
        """Interference since the last report. Whole nanoseconds: what is left counts the next time."""
        reported = self._suffered_ns.setdefault(source.id, {})
        found = []
        for by, suffered_ns in source.interference.items():
            if (more_ns := int(suffered_ns) - reported.get(by, 0)) > 0:
                reported[by] = int(suffered_ns)
                found.append((by, more_ns))
        return tuple(found)

    def _warn(self, scheduler: Scheduler) -> None:
        if scheduler.latency.interference.off and not self._warned:
            self._warned = True
            _log.warning(
                "more than %d models have run on this device: who slows whom is counted no more",
                INTERFERENCE_MODELS_MAX,
            )

    def load(self, scheduler: Scheduler, source: int, ask: Ping, now_ns: int) -> DeviceLoad | None:
        """The device as the source's next request would find it; None where nobody asks."""
        if not ask.asks or source not in scheduler.sources:
            return None
        try:
            return self._description.load(scheduler, scheduler.sources[source], ask, now_ns)
        except Exception:
            _log.exception("the device's load could not be predicted")
            return None

    @property
    def due_ns(self) -> float:
        """Instant of the next snapshot; inf where nobody wants one."""
        if self._publisher is None or not self._publisher.subscribers:
            return inf
        return self._published_ns + (MIN_INTERVAL_NS if self._changed else _IDLE_EVERY_NS)

    def publish(self, scheduler: Scheduler, now_ns: int) -> None:
        """Publish a snapshot where one is due."""
        if self._publisher is None or now_ns < self.due_ns:
            return
        self._published_ns, self._changed = now_ns, False
        try:
            self._publisher.offer(self._description.snapshot(scheduler, now_ns, time.time_ns()))
        except Exception:
            _log.exception("the device could not be described")

    def close(self) -> None:
        """Disconnect all subscribers."""
        if self._publisher is not None:
            self._publisher.close()


def reporter_of_environment(device: str) -> DeviceReporter:
    """Make the reporter that the environment asks for; where its address cannot be used, one that publishes nothing."""
    try:
        address = state_address_of_environment(device)
    except ConfigError as error:
        _log.error("the device's state is not published: %s", error)
        address = None
    if address is None:
        return DeviceReporter(device)
    publisher = StatePublisher(address)
    publisher.start()
    return DeviceReporter(device, publisher)
