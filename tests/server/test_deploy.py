"""The three install lines of deploy/README.md on a real tritonserver, and the dashboard against its real metrics."""

from __future__ import annotations

import http.client
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import uuid
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tritonclient.http as triton_http

from backend.load.server_metrics import parse
from backend.runtime_dir import VARIABLE
from backend.server.locate import locate
from backend.server.ports import free_ports
from backend.server.processes import pids_with, sweep
from backend.server.tether import tethered
from tests.deploy_files import expressions, install, install_lines, selectors
from tests.server.control import eventually, request
from tests.server.harness import mlp, mlp_answer, write_model
from tests.server.test_serve import installed_layout, port_options

READY = "/v2/health/ready"


@dataclass(frozen=True)
class Server:
    http_port: int
    metrics_port: int


def test_the_install_lines_serve_a_model_and_feed_every_query_of_the_dashboard(tmp_path: Path) -> None:
    model = mlp()
    write_model(tmp_path / "models", "mine", model, 'backend: "isochrone"\nmax_batch_size: 8\n')
    prefix = tmp_path / "tritonserver"
    installed_layout(prefix, locate())
    folder = install(prefix, tmp_path / "source")
    with serving(prefix, tmp_path) as server, client(server) as triton:
        x = np.ones((1, 16), np.float32)
        answer = triton.infer("mine", request(triton_http, {"x": x}))
        np.testing.assert_allclose(answer.as_numpy("y"), mlp_answer(model, x), rtol=1e-4)
        assert begun_in(folder), "the scheduler is not that of the installed backend"
        eventually(lambda: parse(metrics(server)).total("isochrone_requests_total", model="mine", outcome="met") == 1)
        exported = [(name, dict(labels)) for name, labels in parse(metrics(server)).values]
    for name, expression in expressions().items():
        for selector in selectors(expression):
            assert any(selector.matches(*series) for series in exported), f"{name} finds no {selector}"


@contextmanager
def serving(prefix: Path, cwd: Path) -> Iterator[Server]:
    """The third line, run in `cwd`; this server's backends are not under /opt, so it must be told where."""
    http_port, grpc_port, metrics_port = free_ports(3)
    loopback = [f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")]
    ports = port_options([str(http_port), str(grpc_port), str(metrics_port)])
    regions = f"triton_deploy_{uuid.uuid4().hex}_"
    backends = f"--backend-directory={prefix / 'backends'}"
    named = f"--backend-config=python,shm-region-prefix-name={regions}"
    argv = [*shlex.split(install_lines()[2]), backends, named, *loopback, *ports]
    with tempfile.TemporaryDirectory() as runtime_dir, (cwd / "log").open("wb") as log:
        environment = os.environ | {
            "PATH": os.pathsep.join([str(prefix / "bin"), str(python_with_dependencies(cwd)), os.environ["PATH"]]),
            "LD_LIBRARY_PATH": str(prefix / "lib"),
            VARIABLE: runtime_dir,
        }
        argv[0] = shutil.which(argv[0], path=environment["PATH"]) or ""
        process = subprocess.Popen(tethered(argv), cwd=cwd, env=environment, stdout=log, stderr=log)
        try:
            eventually(lambda: process.poll() is not None or get(http_port, READY)[0] == 200, timeout_s=60.0)
            assert process.poll() is None, (cwd / "log").read_text()
            yield Server(http_port, metrics_port)
            process.terminate()
            assert process.wait(timeout=30) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
                sweep(prefix / "backends", regions)
            for scheduler in pids_with(VARIABLE, runtime_dir):
                os.kill(scheduler, signal.SIGTERM)
            eventually(lambda: not pids_with(VARIABLE, runtime_dir))


def begun_in(folder: Path) -> bool:
    """Whether a process looks for modules there first."""
    first = f"PYTHONPATH={folder}".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it ended meanwhile
            if any(entry.split(b":")[0] == first for entry in environ.read_bytes().split(b"\0")):
                return True
    return False


def python_with_dependencies(folder: Path) -> Path:
    """A `bin` folder whose python3 has what this environment has, but not this repository, installed or not."""
    venv.create(folder / "python", symlinks=True)
    site = folder / "python" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "python" / "bin"


@contextmanager
def client(server: Server) -> Iterator[triton_http.InferenceServerClient]:
    """Closed at the end: Triton waits for open connections before it ends."""
    triton = triton_http.InferenceServerClient(f"127.0.0.1:{server.http_port}")
    try:
        yield triton
    finally:
        triton.close()


def metrics(server: Server) -> str:
    """As Prometheus reads it; since version 3 it refuses an answer that does not name its format."""
    status, content_type, body = get(server.metrics_port, "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    return body


def get(port: int, path: str) -> tuple[int, str, str]:
    """Status, type and body; status 0 where nobody answers yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read().decode()
    except OSError:
        return 0, "", ""
    finally:
        connection.close()
