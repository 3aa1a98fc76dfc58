"""File descriptors, cores and the wall clock."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from backend.server.loopback import HOST
from tests.chaos.faults.fault import Fault, Undo
from tests.chaos.models import SPARE
from tests.chaos.stage import Stage

_HOUR_S = 3600


def exhaust_descriptors(roles: Sequence[str], stage: Stage) -> Undo:
    """Take all free descriptors away, and have somebody knock."""
    limits = {}
    for pid in [pid for role in roles for pid in stage.pids(role)]:
        limits[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_first_free(pid), limits[pid][1]))
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
    for address in (*unix, (HOST, stage.state_port)):
        kind = (socket.AF_UNIX, socket.SOCK_SEQPACKET) if isinstance(address, str) else (socket.AF_INET,)
        connection = socket.socket(*kind)
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
    """Move the wall clock of the server's processes by so much, and back in the end."""
    stage.set_clock(ahead_s)
    return partial(_right_clock, stage)


def _right_clock(stage: Stage) -> None:
    stage.set_clock(0)
    time.sleep(1.0)  # it is read once a second


CLOCK = frozenset({"clock"})
ROUTE = frozenset({"route"})
FAULTS = (
    Fault("no descriptor for the scheduler", partial(exhaust_descriptors, ("scheduler",)), 2.0),
    Fault("no descriptor for the engine process", partial(exhaust_descriptors, ("engine",)), 2.0),
    Fault("no descriptor for a model's process", partial(exhaust_descriptors, (SPARE, "shared")), 2.0),
    Fault("no descriptor for tritonserver", partial(exhaust_descriptors, ("server",)), 2.0),
    Fault("no descriptor for the router", partial(exhaust_descriptors, ("router",)), 2.0, needs=ROUTE),
    Fault("take a core away", take_cores, 2.0),
    Fault("clock an hour ahead", partial(move_clock, _HOUR_S), 3.0, needs=CLOCK),
    Fault("clock an hour back", partial(move_clock, -_HOUR_S), 3.0, needs=CLOCK),
)
