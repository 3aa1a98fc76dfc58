"""A server at a quiet moment: no request under way, no client connected. Two of them tell what was left behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backend.server.embedded import EmbeddedServer
from benchmarks.soak.processes import Reading, files_in, read, runs, shared_memory_of

LOADED_ANEW = frozenset({"model reloaded_0", "model comes_and_goes_0"})
"""Processes that are others each time; one has open what tritonserver had as it began."""
_CLOSED_S, _COUNTED_WITHIN_S = 2.0, 10.0
"""Time after which connections are closed, and within which counts reach /metrics, once a model is quiet."""
SLACK = {"tritonserver": 4}
"""Descriptors and threads that may be more than before: of gRPC's and HTTP's pools. 0 elsewhere."""
_ENDED_WITHIN_S = 5.0


@dataclass(frozen=True)
class QuietMoment:
    """Processes, shared memory and files of the runtime folder, in bytes by name."""

    readings: tuple[Reading, ...]
    shared_memory: dict[str, int]
    files: dict[str, int]
    metrics: str

    def of(self, role: str) -> Reading | None:
        """The process with that role, where there is one."""
        return next((reading for reading in self.readings if reading.role == role), None)


def quiet_moment(server: EmbeddedServer, at_s: float, counted: Callable[[str], bool]) -> QuietMoment:
    """Waits until what was sent is counted, or should be, then looks.

    at_s: of the readings; counted: whether /metrics, its text, tells of all requests.
    """
    time.sleep(_CLOSED_S)
    until_s = time.monotonic() + _COUNTED_WITHIN_S
    while not counted(server.metrics()) and time.monotonic() < until_s:
        time.sleep(0.1)
    return QuietMoment(
        tuple(read(server, at_s)), shared_memory_of(server), files_in(server.runtime_dir), server.metrics()
    )


def left_over(before: QuietMoment, after: QuietMoment) -> list[str]:
    """Sentences on descriptors, threads, processes, shared memory and files that are more than before."""
    found = []
    for now in after.readings:
        then = before.of(now.role)
        if then is None:
            found.append(f"a process more: {now.role} ({now.pid})")
            continue
        if then.pid != now.pid:
            if now.role not in LOADED_ANEW:
                found.append(f"{now.role} is another process ({now.pid}) than before ({then.pid})")
            continue
        slack = SLACK.get(now.role, 0)
        for what, count, earlier in (
            ("descriptors", now.descriptors, then.descriptors),
            ("threads", now.threads, then.threads),
        ):
            if count > earlier + slack:
                found.append(f"{now.role} has {count} {what}, {earlier} before")
    if len(after.shared_memory) > len(before.shared_memory):
        found.append(f"{len(after.shared_memory)} regions in /dev/shm, {len(before.shared_memory)} before")
    found += [f"{then.role} ({then.pid}) is gone" for then in before.readings if after.of(then.role) is None]
    new = after.files.keys() - before.files.keys()
    found += [f"the runtime folder has '{name}', which it had not before" for name in sorted(new)]
    return found


def left_behind(pids: list[int], prefix: str) -> list[str]:
    """Sentences on what is left of a server that has ended. pids: of its processes."""
    until_s = time.monotonic() + _ENDED_WITHIN_S
    while (left := [pid for pid in pids if runs(pid)]) and time.monotonic() < until_s:
        time.sleep(0.05)
    processes = [f"process {pid} is still there" for pid in left]
    return processes + [f"shared memory '{path.name}' is still there" for path in Path("/dev/shm").glob(f"{prefix}*")]
