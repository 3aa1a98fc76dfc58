"""Stubs of a tritonserver, found in /proc, and the removal of stubs and shared memory that it left behind.

A stub is recognised by the folder of the Python backend in its arguments. Each server started here has a backend folder
of its own, so that no other server's stubs or memory are touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_SHM = Path("/dev/shm")


@dataclass(frozen=True)
class Stub:
    """Process of a Python model. instance: such as "resnet50_0"; while a model loads, Triton also runs a stub that
    completes its configuration.
    """

    pid: int
    model: str
    instance: str


def stubs_of(backends: Path) -> list[Stub]:
    """Running stubs of the server with this backend directory, oldest first."""
    stubs = [_stub(pid, _read(pid, "cmdline").split("\0"), str(backends / "python")) for pid in _pids()]
    return [stub for stub in stubs if stub is not None]


def pids_with(variable: str, value: str) -> list[int]:
    """Processes other than this one that started with `variable=value` in their environment."""
    wanted = f"{variable}={value}"
    return [pid for pid in _pids() if pid != os.getpid() and wanted in _read(pid, "environ").split("\0")]


def end(find: Callable[[], Iterable[int]], term_s: float = 5.0) -> None:
    """Send SIGTERM, and SIGKILL after `term_s`, to the processes that `find` returns, called anew before each."""
    for signum, wait_s in ((signal.SIGTERM, term_s), (signal.SIGKILL, 5.0)):
        for pid in find():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        if _gone(find, wait_s):
            return


def sweep(backends: Path, regions: str, grace_s: float = 3.0) -> None:
    """End the stubs and remove the shared memory of a server that failed. regions: prefix of the memory's names.

    A stub notices the loss of its server within a second and cleans up itself; this is for those that cannot, and for
    memory whose stub had not started yet. Triton's /tmp/python_env_XXXXXX stays, mostly empty: its name does not tell
    its owner.
    """
    if not _gone(lambda: [stub.pid for stub in stubs_of(backends)], grace_s):
        end(lambda: [stub.pid for stub in stubs_of(backends)], term_s=0.0)
    for region in _SHM.glob(f"{regions}*"):
        region.unlink(missing_ok=True)


def _gone(find: Callable[[], Iterable[int]], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while list(find()):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _stub(pid: int, argv: list[str], python_backend: str) -> Stub | None:
    # argv: stub, <repository>/<model>/<version>/model.py, region, 2 sizes, server's pid, Python backend's folder,
    # an offset, instance name, folder of the backend's own model.py (or DEFAULT)
    if len(argv) < 9 or argv[6] != python_backend:
        return None
    return Stub(pid=pid, model=Path(argv[1]).parents[1].name, instance=argv[8])


def _pids() -> list[int]:
    return sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _read(pid: int, name: str) -> str:
    """File of a process; empty for one that is gone (a zombie's files are empty as well) or another user's."""
    try:
        return Path("/proc", str(pid), name).read_text(errors="replace")
    except OSError:
        return ""
