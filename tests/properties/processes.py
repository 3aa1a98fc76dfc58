"""State of models as their processes know it: what waits, what runs, what is theirs to launch."""

from __future__ import annotations

from dataclasses import dataclass, field

from backend.scheduler.messages import Join, Lease, Request
from predictor.workload import Load
from tests.properties.intervals import Interval
from tests.properties.solo_history import SoloHistory


@dataclass
class Batch:
    """interval: the latest stretch of its time on the device. suspended: while another one preempts it. group: None of
    an adopted one.
    """

    requests: tuple[int, ...]
    key: tuple[int, int]
    lane: int
    interval: Interval
    load: Load
    launched_ns: int
    due_ns: int | None
    rows: int
    group: int | None
    preempts: bool = False
    suspended: bool = False
    was_suspended: bool = False


@dataclass
class Model:
    """State of a source as its process knows it: what waits, what runs."""

    join: Join
    solo: SoloHistory
    waiting: dict[int, Request] = field(default_factory=dict)
    running: dict[int, Batch] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    """Requests that were launched, rejected or cancelled."""
    arrivals: int = 0
    lease: Lease | None = None
    recalled: bool = False
    moves: bool = False
    """A batch of it has moved something."""
    late: frozenset[int] = frozenset()
    """Set aside before this event."""
    doubted: bool = False
    """One was let through at this event."""

    def may_take(self) -> bool:
        return self.lease is not None and not self.waiting and not self.running
