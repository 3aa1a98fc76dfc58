"""File descriptors, cores and the wall clock."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from backend.server.loopback import HOST
from tests.chaos.faults.fault import ALL, Fault, Undo
from tests.chaos.models import SPARE
from tests.chaos.sockets import connection_for
from tests.chaos.stage import Stage

_HOUR_S, _CLOCK_SEEN_S = 3600, 60.0


def exhaust_descriptors(roles: Sequence[str], stage: Stage, kill: str = "") -> Undo:
    """Take all free descriptors away, and have somebody knock. kill: a process that must be replaced without any."""
    limits = {}
    for pid in [pid for role in roles for pid in stage.pids(role)]:
        limits[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_first_free(pid), limits[pid][1]))
    if kill:
        os.kill(stage.pid(kill), signal.SIGKILL)
    knocks = [knock for _ in range(3) for knock in _knock(stage)]

    def give_back() -> None:
        for knock in knocks:
            knock.close()
        for pid, limit in limits.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)

    return give_back


def _first_free(pid: int) -> int:
    """The number that the kernel gives out next: a limit there leaves what is open as it is."""
    taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def _knock(stage: Stage) -> list[socket.socket]:
    found = []
    unix = [str(stage.runtime_dir / name) for name in ("cpu.sock", "cpu-engines.sock")]
    addresses: tuple[str | tuple[str, int], ...] = (*unix, (HOST, stage.state_port))
    for address in addresses:
        connection = connection_for(address)
        connection.settimeout(0.1)
        with suppress(OSError):
            connection.connect(address)
        found.append(connection)
    return found


def take_cores(stage: Stage) -> Undo:
    """Leave one core to every thread of the server, as the kernel does where a cpuset shrinks."""
    before: dict[int, set[int]] = {}
    core = min(os.sched_getaffinity(0))
    for thread in _threads(stage):
        with suppress(OSError):
            before[thread] = os.sched_getaffinity(thread)
            os.sched_setaffinity(thread, {core})

    def give_back() -> None:
        for thread in _threads(stage):
            with suppress(OSError):
                os.sched_setaffinity(thread, before.get(thread, os.sched_getaffinity(0)))

    return give_back


def _threads(stage: Stage) -> list[int]:
    found = []
    for pid in stage.all_pids():
        with suppress(OSError):
            found += [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    return found


def move_clock(ahead_s: int, stage: Stage) -> Undo:
    """Move the wall clock of the server's Python processes by so much, and back in the end."""
    assert stage.clock is not None
    stage.clock.move(ahead_s)
    published_s = _published_at_s(stage) - time.time()
    assert abs(published_s - ahead_s) < _CLOCK_SEEN_S, f"the scheduler's clock is {published_s:.0f} s ahead"
    return partial(stage.clock.move, 0)


def _published_at_s(stage: Stage) -> float:
    """Unix time by the scheduler's clock."""
    with (
        socket.create_connection((HOST, stage.state_port), timeout=5.0) as connection,
        connection.makefile("rb") as lines,
    ):
        connection.sendall(b'{"type": "subscribe", "protocol": 1}\n')
        for _ in range(20):  # the first may be older than the move
            at_s = float(json.loads(lines.readline())["at_ns"]) / 1e9
    return at_s


CLOCK = frozenset({"clock"})
ROUTE = frozenset({"route"})
FAULTS = (
    Fault("no descriptor for the scheduler", partial(exhaust_descriptors, ("scheduler",)), 2.0),
    Fault("no descriptor for the engine process", partial(exhaust_descriptors, ("engine",)), 2.0),
    Fault("no descriptor for a model's process", partial(exhaust_descriptors, (SPARE, "shared")), 2.0),
    Fault(
        "no descriptor for the models' processes and kill the scheduler",
        partial(exhaust_descriptors, ALL, kill="scheduler"),
        1.0,
        stops_decisions=True,
    ),
    Fault(
        "no descriptor for the models' processes and kill the engine process",
        partial(exhaust_descriptors, ALL, kill="engine"),
        1.0,
        stops_decisions=True,
    ),
    Fault("no descriptor for tritonserver", partial(exhaust_descriptors, ("server",)), 2.0),
    Fault("no descriptor for the router", partial(exhaust_descriptors, ("router",)), 2.0, needs=ROUTE),
    Fault("take a core away", take_cores, 2.0),
    Fault("clock an hour ahead", partial(move_clock, _HOUR_S), 3.0, needs=CLOCK),
    Fault("clock an hour back", partial(move_clock, -_HOUR_S), 3.0, needs=CLOCK),
)
