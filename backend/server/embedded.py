"""A tritonserver with this backend as a child process: for tests, benchmarks, the demo and evaluations.

Ports, runtime folder and backend folder are its own, so that several can run at once; `stop` ends all processes that it
started and removes all files that it wrote, also after the server or a stub was killed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from backend.errors import ServerError
from backend.runtime_dir import VARIABLE as RUNTIME_DIR
from backend.server import processes
from backend.server.assemble import CODE
from backend.server.checks import check_models
from backend.server.command import ServerCommand, assemble_command
from backend.server.failure import failure_reason
from backend.server.loopback import HOST, get
from backend.server.options import ServeOptions
from backend.server.paths import short_temporary_folder
from backend.server.ports import free_ports
from backend.server.processes import Stub
from backend.server.tether import tethered

_PORT_TAKEN = "already in use"  # tritonserver: "failed to start HTTP service: Unavailable - Socket '…' already in use"
_PORT_ATTEMPTS = 5
_POLL_S = 0.02
_STOP_S = 45.0  # Triton itself gives up waiting for requests in flight after 30 s


class EmbeddedServer:
    """A context manager; or call `start` and `stop`.

    extra: arguments of tritonserver. env: added to this process's environment. wait: "live" does not wait for the
    models; readiness stays false where one failed to load under `--exit-on-error=false`. With ISOCHRONE_RUNTIME_DIR in
    `env`, that folder and the schedulers in it are the caller's to end. code: folder of this backend's code.
    """

    def __init__(
        self,
        repository: Path,
        *,
        env: Mapping[str, str] | None = None,
        extra: Sequence[str] = (),
        ready_timeout_s: float = 60.0,
        log: Path | None = None,
        wait: Literal["ready", "live"] = "ready",
        tritonserver: Path | None = None,
        code: Path = CODE,
    ) -> None:
        self._repository = repository
        self._env = dict(env or {})
        self._extra = tuple(extra)
        self._ready_timeout_s = ready_timeout_s
        self._log = log
        self._wait = wait
        self._tritonserver = tritonserver
        self._code = code
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._command: ServerCommand | None = None
        self._ports: dict[str, int] = {}
        self._last_log = ""
        self._exit_code: int | None = None

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def http_url(self) -> str:
        return f"{HOST}:{self._ports['http']}"

    @property
    def grpc_url(self) -> str:
        return f"{HOST}:{self._ports['grpc']}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def runtime_dir(self) -> Path:
        """ISOCHRONE_RUNTIME_DIR of this server."""
        if RUNTIME_DIR in self._env:
            return Path(self._env[RUNTIME_DIR])
        if self._folder is None:
            raise ServerError("the server has not been started")
        return self._folder / "run"

    def log_text(self) -> str:
        """Log of the server so far; after `stop`, all of it."""
        path = self._log_path()
        return path.read_text(errors="replace") if path and path.exists() else self._last_log

    def metrics(self) -> str:
        """Text of /metrics. Raises ServerError."""
        status, body = get(self._ports["metrics"], "/metrics")
        if status != 200:
            raise ServerError(
                f"the server's /metrics does not answer (status {status}): {failure_reason(self.log_text())}"
            )
        return body

    @property
    def shared_memory_prefix(self) -> str:
        """Beginning of the names of its shared memory, and of no other server's."""
        assert self._command is not None
        return self._command.regions

    def stubs(self) -> list[Stub]:
        """Processes that run Python models, one per model instance."""
        assert self._command is not None
        return processes.stubs_of(self._command.backends)

    def stub_pids(self) -> dict[str, int]:
        """Process of each model, the newest one of a model with several instances."""
        return {stub.model: stub.pid for stub in self.stubs()}

    def start(self) -> None:
        """Start the server and wait until it is ready (or live). Raises ServerError with the log's reason."""
        if self._process is not None:
            raise ServerError("the server is already running")
        self._folder = short_temporary_folder()
        try:
            for _ in range(_PORT_ATTEMPTS):
                self._spawn()
                if self._wait_until_up():
                    return
                self._end_server()
            raise ServerError(f"other processes took each of {_PORT_ATTEMPTS} choices of free ports")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int:
        """End the server and all that it started; returns its exit code, negative: the signal that killed it."""
        try:
            if self._process is not None:
                self._exit_code = self._end_server()
        finally:
            self._clean_up()
        return self._exit_code if self._exit_code is not None else 0

    def _spawn(self) -> None:
        assert self._folder is not None
        self._ports = dict(zip(("http", "grpc", "metrics"), self._choose_ports(), strict=True))
        options = ServeOptions(
            model_repository=self._repository,
            host=HOST,
            http_port=self._ports["http"],
            grpc_port=self._ports["grpc"],
            metrics_port=self._ports["metrics"],
            tritonserver=self._tritonserver,
            extra=self._extra,
        )
        check_models(options)
        self.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._command = assemble_command(
            options, Path(tempfile.mkdtemp(prefix="server-", dir=self._folder)), self._code
        )
        argv: Sequence[str] = self._command.argv
        if threading.current_thread() is threading.main_thread():  # see tether: other threads may end before us
            argv = tethered(argv)
        env = self._command.env | self._env | {RUNTIME_DIR: str(self.runtime_dir)}
        log_path = self._log_path()
        assert log_path is not None
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                argv,
                env=env,
                cwd=self._command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _choose_ports(self) -> list[int]:
        return free_ports(3, HOST)

    def _wait_until_up(self) -> bool:
        """Wait until the server is ready or live; False if a port was taken meanwhile. Raises ServerError."""
        process = self._running()
        deadline = time.monotonic() + self._ready_timeout_s
        while time.monotonic() < deadline:
            code = process.poll()
            if _PORT_TAKEN in self.log_text():
                return False
            if code is not None:
                raise ServerError(f"tritonserver ended with exit code {code}: {failure_reason(self.log_text())}")
            if self._is_up():
                return True
            time.sleep(_POLL_S)
        raise ServerError(
            f"tritonserver was not {self._wait} within {self._ready_timeout_s:g} s: {failure_reason(self.log_text())}"
        )

    def _is_up(self) -> bool:
        if get(self._ports["http"], f"/v2/health/{self._wait}")[0] != 200:
            return False
        # Triton starts the metrics endpoint last.
        return "--allow-metrics=false" in self._extra or get(self._ports["metrics"], "/metrics")[0] == 200

    def _end_server(self) -> int:
        process, self._process = self._running(), None
        assert self._command is not None
        process.terminate()
        try:
            code = process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        except BaseException:  # the user's Ctrl-C: still leave nothing behind
            process.kill()
            process.wait()
            self._command.sweep()
            raise
        if code != 0:
            self._command.sweep()
        return code

    def _clean_up(self) -> None:
        if self._folder is None:
            return
        if RUNTIME_DIR not in self._env:  # scheduler and engine processes of this server alone
            runtime_dir = str(self.runtime_dir)
            processes.end(lambda: processes.pids_with(RUNTIME_DIR, runtime_dir))
        self._last_log = self.log_text()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process

    def _log_path(self) -> Path | None:
        return self._log or (self._folder and self._folder / "log")
