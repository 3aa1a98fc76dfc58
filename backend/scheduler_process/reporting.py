"""Tells others of the device: subscribers by snapshots, and models' processes their parts of the backlog.

Runs on the scheduler's thread, after decisions were sent, and only as often as needed. A bug here costs a report.
"""

from __future__ import annotations

import logging
import secrets
import time
from math import inf

from backend.errors import ConfigError
from backend.fleet.snapshot import MIN_INTERVAL_NS
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Arrive, Event, Take
from backend.scheduler_process.device_snapshot import DeviceDescription
from backend.scheduler_process.state_address import state_address_of_environment
from backend.scheduler_process.state_publisher import StatePublisher

_BACKLOG_EVERY_NS = 100_000_000
"""Between two tellings of its backlog to a model's process, which exports it more seldom."""
_IDLE_EVERY_NS = 400_000_000
"""Between two snapshots while nothing happens: earlier than `MAX_INTERVAL_NS`, for the way to a subscriber."""
_log = logging.getLogger("isochrone.scheduler")


class DeviceReporter:
    """publisher: of snapshots; None: to nobody."""

    def __init__(self, device: str, publisher: StatePublisher | None = None) -> None:
        self._description = DeviceDescription(device, secrets.token_hex(8))
        self._publisher = publisher
        self._told_ns: dict[int, int] = {}
        """Time of the last telling, by source."""
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
        self._told_ns.pop(source, None)

    def backlog_ns(self, scheduler: Scheduler, source: int, now_ns: int) -> int | None:
        """The source's part of the backlog, if it is time to tell it."""
        if now_ns - self._told_ns.get(source, 0) < _BACKLOG_EVERY_NS or source not in scheduler.sources:
            return None
        self._told_ns[source] = now_ns
        try:
            return self._description.backlog_ns(scheduler, scheduler.sources[source], now_ns)
        except Exception:
            _log.exception("the backlog could not be predicted")
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
