"""A server's processes by role, and their memory, descriptors and threads, from /proc."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backend.runtime_dir import VARIABLE
from backend.server.embedded import EmbeddedServer
from backend.server.processes import Stub, pids_with

_SHM = Path("/dev/shm")
_MODULES = {
    "backend.scheduler_process.process": "scheduler",
    "backend.engine_process.process": "engine process",
    "backend.trial.process": "trial of a model",
}


@dataclass(frozen=True)
class Reading:
    """One process at one moment, `at_s` after the soak began. Sizes in kB; pss_kb: with its part of what is shared."""

    at_s: float
    role: str
    pid: int
    rss_kb: int
    pss_kb: int
    anonymous_kb: int
    shared_kb: int
    descriptors: int
    threads: int


def roles(server: EmbeddedServer) -> dict[int, str]:
    """Role by process."""
    stubs = {stub.pid: _role_of_stub(stub) for stub in server.stubs()}
    others = {pid: _role(pid) for pid in pids_with(VARIABLE, str(server.runtime_dir)) if pid not in stubs}
    return {**others, **stubs, server.pid: "tritonserver"}


def read(server: EmbeddedServer, at_s: float) -> list[Reading]:
    """Every process of the server; one that ends meanwhile is left out."""
    found = []
    for pid, role in roles(server).items():
        with suppress(OSError, KeyError):
            found.append(_reading(pid, role, at_s))
    return found


def shared_memory_of(server: EmbeddedServer) -> dict[str, int]:
    """Bytes by name of the shared memory that a server of this user's and its models have in /dev/shm."""
    prefix = server.shared_memory_prefix
    found = {}
    for path in _SHM.glob(f"{prefix}*"):
        with suppress(OSError):
            found[path.name] = path.stat().st_blocks * 512
    return found


def runs(pid: int) -> bool:
    """True of a process that runs; one that has ended and was not waited for does not."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def files_in(folder: Path) -> dict[str, int]:
    """Bytes by name of all files below a folder."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() or path.is_socket():
                found[str(path.relative_to(folder))] = path.stat().st_size
    return found


class Sampler:
    """Reads a server's processes every few seconds, while it is entered."""

    def __init__(self, server: EmbeddedServer, every_s: float, take: Callable[[list[Reading]], None]) -> None:
        self._server, self._every_s, self._take = server, every_s, take
        self._began_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def now_s(self) -> float:
        """Seconds since the soak began."""
        return time.monotonic() - self._began_s

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._take(read(self._server, self.now_s))


def _role(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline")
    with suppress(OSError):
        arguments = command.read_text(errors="replace").split("\0")
        if any("triton_python_backend_stub" in argument for argument in arguments):
            return "start of a model's process"
        return next((role for module, role in _MODULES.items() if module in arguments), " ".join(arguments).strip())
    return "gone"


def _role_of_stub(stub: Stub) -> str:
    """Stubs without a number complete a configuration."""
    return f"completion of {stub.model}" if stub.instance == stub.model else f"model {stub.instance}"


def _reading(pid: int, role: str, at_s: float) -> Reading:
    process = Path(f"/proc/{pid}")
    sizes = _sizes((process / "smaps_rollup").read_text())
    return Reading(
        at_s,
        role,
        pid,
        rss_kb=sizes["Rss"],
        pss_kb=sizes["Pss"],
        anonymous_kb=sizes["Anonymous"],
        shared_kb=sizes["Pss_Shmem"],
        descriptors=len(list((process / "fd").iterdir())),
        threads=len(list((process / "task").iterdir())),
    )


def _sizes(rollup: str) -> Mapping[str, int]:
    """kB by name, of the lines of /proc/PID/smaps_rollup after the first."""
    lines = (line.split() for line in rollup.splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) for words in lines}
