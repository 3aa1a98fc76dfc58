"""Short ways to say what the router's tests are about: endpoints, and snapshots of their devices, in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.fleet.endpoints import Endpoint, Fleet
from backend.fleet.snapshot import FLEET_PROTOCOL, DeviceSnapshot, MachineFacts, ModelState, RunningState

MS = 1_000_000
START_NS = 10**18
"""The first instant of a router's test, as Unix time is."""
MACHINE = MachineFacts("made up", True, memory_bytes=16_000_000_000)


def fleet_of(*names: str) -> Fleet:
    """Endpoints by name, of which nothing is known yet."""
    return Fleet([Endpoint(name, f"10.0.0.{i}:8001") for i, name in enumerate(names)])


def model_state(  # noqa: PLR0913 - a test names the few that it is about
    name: str = "m",
    solo_ms: float = 10.0,
    *,
    version: str = "1",
    waiting: int = 0,
    arrivals: int = 0,
    max_batch_size: int = 1,
    sensitivity: float = 0.0,
    pressure: float = 0.0,
    priority: int = 1,
) -> ModelState:
    """A model, with requests of one row and one class that wait; each further row of a batch takes a tenth."""
    sizes = [n for n in (1, 2, 4, 8) if n <= max_batch_size]
    return ModelState(
        name,
        version,
        max_batch_size,
        arrivals,
        {str(priority): waiting} if waiting else {},
        waiting,
        [(n, round(solo_ms * (0.9 + 0.1 * n) * MS)) for n in sizes],
        1.0,
        sensitivity,
        pressure,
        None,
        1,
    )


def batch(
    model: str = "m", remaining_ms: float = 10.0, slack_ms: float | None = None, rows: int = 1, priority: int = 1
) -> RunningState:
    """A batch that runs."""
    slack_ns = None if slack_ms is None else round(slack_ms * MS)
    return RunningState(model, rows, priority, round(remaining_ms * MS), slack_ns)


def snapshot_of(
    models: Sequence[ModelState],
    running: Sequence[RunningState] = (),
    *,
    lanes: int = 1,
    sequence: int = 1,
    at_ns: int = START_NS,
    device: str = "gpu-0",
    publisher: str = "first",
) -> DeviceSnapshot:
    """A device at one instant."""
    return DeviceSnapshot(
        FLEET_PROTOCOL, publisher, sequence, at_ns, device, lanes, MACHINE, 0, list(models), list(running)
    )


def observed(snapshots: Mapping[str, DeviceSnapshot]) -> Fleet:
    """Endpoints that have just sent these."""
    fleet = fleet_of(*snapshots)
    for name, snapshot in snapshots.items():
        fleet.observe(name, snapshot, START_NS)
    return fleet
