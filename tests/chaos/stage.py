"""The server under faults: tritonserver with its models, the device's processes, a router and an Envoy before it.

Everything that is filled up or taken away is of this process's own: run it in a mount namespace (see `__main__`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from backend.route_process.embedded_route import EmbeddedRoute
from backend.route_process.endpoints_file import Server
from backend.server.embedded import EmbeddedServer
from backend.server.loopback import HOST
from backend.server.ports import free_ports
from backend.server.processes import end, pids_with
from tests.chaos.models import MODELS
from tests.chaos.moved_clock import MovedClock
from tests.server.control import EXPLICIT, load, remember_profile
from tests.server.harness import write_model

_SOLO_MS = 5.0
_EXIT_TIMEOUT_S = 3
_TRITON_SPINS = "Error from accept() call"
"""Which tritonserver writes without end where no descriptor is left."""
_MODULES = {"scheduler": b"backend.scheduler_process.process", "engine": b"backend.engine_process.process"}


class Stage:
    """A context manager. volume: a folder on a small file system of its own, or None where no file system is filled.

    with_clock: its processes have a `clock` that can be moved. with_route: there are also a router and an Envoy.
    """

    def __init__(self, volume: Path | None, *, with_clock: bool = False, with_route: bool = True) -> None:
        self.volume = volume
        self._with_clock, self._with_route = with_clock, with_route
        self._stack = ExitStack()
        self._folder = Path()
        self.server: EmbeddedServer
        self.clock: MovedClock | None = None
        self.route: EmbeddedRoute | None = None
        self.state_port = 0
        self.runtime_dir = Path()

    def __enter__(self) -> Stage:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self.runtime_dir = (self.volume or self._folder) / f"run-{os.getpid()}"
        self._stack.callback(self._end_processes)
        self.runtime_dir.mkdir(mode=0o700)
        repository = self._folder / "models"
        folders = [write_model(repository, name, model.graph(), model.config()) for name, model in MODELS.items()]
        (self.state_port,) = free_ports(1)
        extra = [*EXPLICIT, "--disable-auto-complete-config", f"--exit-timeout-secs={_EXIT_TIMEOUT_S}"]
        self.server = EmbeddedServer(repository, extra=extra, env=self._environment())
        self._stack.enter_context(self.server)
        for folder in folders:
            remember_profile(self.server, folder, solo_ms=_SOLO_MS, max_batch_size=4)
        failed = load(self.server, MODELS)
        if failed:
            raise RuntimeError(f"models could not be loaded: {failed}")
        if self._with_route:
            server = Server("a", self.server.http_url, self.server.grpc_url, (f"{HOST}:{self.state_port}",))
            self.route = self._stack.enter_context(EmbeddedRoute([server]))

    def _environment(self) -> dict[str, str]:
        found = {
            "ISOCHRONE_RUNTIME_DIR": str(self.runtime_dir),
            "ISOCHRONE_STATE_ADDRESS": f"{HOST}:{self.state_port}",
            "ISOCHRONE_EVENTS": str(self.runtime_dir / "events.jsonl"),
            "ISOCHRONE_SAMPLES": str(self.runtime_dir / "samples.jsonl"),
        }
        if self._with_clock:
            self.clock = MovedClock(self._folder / "python")
            found["PATH"] = f"{self.clock.path}:{os.environ['PATH']}"
        return found

    def model_folder(self, name: str) -> Path:
        """A model's folder in the repository."""
        return self._folder / "models" / name

    @property
    def is_alive(self) -> bool:
        """True while tritonserver runs."""
        try:
            os.kill(self.server.pid, 0)
            return "Z" not in Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False

    # Processes

    def pids(self, role: str) -> list[int]:
        """Processes of `scheduler`, `engine`, `server`, `router` or of a model's name, the device's oldest first."""
        if role == "server":
            return [self.server.pid]
        if role == "router":
            return [] if self.route is None else [self.route.pid("router")]
        if role in MODELS:
            return [stub.pid for stub in self.server.stubs() if stub.model == role]
        found = pids_with("ISOCHRONE_RUNTIME_DIR", str(self.runtime_dir))
        return [pid for pid in found if _MODULES[role] in command_line(pid)]

    def pid(self, role: str) -> int:
        """The newest of them. Raises LookupError where there is none within two seconds."""
        deadline_s = time.monotonic() + 2.0
        while not (found := self.pids(role)):
            if time.monotonic() > deadline_s:
                raise LookupError(f"no {role} process runs")
            time.sleep(0.02)
        return found[-1]

    def all_pids(self) -> list[int]:
        """Every process of the server."""
        return [pid for role in ("server", *MODELS, *_MODULES) for pid in self.pids(role)]

    def logs(self) -> str:
        """Read what the server's processes and the router wrote; where the runtime folder was removed, since then."""
        found = [path.read_text(errors="replace") for path in sorted(self.runtime_dir.glob("*.log"))]
        if self.route is not None:
            found.append(self.route.log("router"))
        lines = "\n".join([self.server.log_text(), *found]).splitlines()
        return "\n".join(line for line in lines if _TRITON_SPINS not in line)

    def _end_processes(self) -> None:
        end(lambda: [pid for role in _MODULES for pid in self.pids(role)])
        shutil.rmtree(self.runtime_dir, ignore_errors=True)


def command_line(pid: int) -> bytes:
    """A process's arguments; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
