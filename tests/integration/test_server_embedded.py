"""EmbeddedServer against a fake tritonserver of ten lines: port choice, reasons of failure, what `stop` ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from backend.errors import ServerError
from backend.server import embedded, processes
from backend.server.embedded import EmbeddedServer
from backend.server.ports import free_ports

# Takes port 1 for taken; its other ways to behave are asked for by options.
FAKE = """#!{python}
import http.server, subprocess, sys, threading
ports = [int(a.partition("=")[2]) for a in sys.argv if a.startswith(("--http-port", "--metrics-port"))]
if "--fail" in sys.argv:
    print('E1122 01:10:22.582732 4400 model_lifecycle.cc:642] "failed to load \\'m\\' version 1: '
          'Internal: KeyError: no weights\\\\n\\\\nAt:\\\\n  model.py(2): <module>"')
    print("error: creating server: Internal - failed to load all models")
    sys.exit(1)
if ports[0] == 1:
    print('E1122 01:11:07 4876 main.cc:257] "failed to start HTTP service: Unavailable - Socket already in use "')
    sys.exit(1)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(400 if "--never-ready" in sys.argv and self.path.endswith("ready") else 200)
        self.end_headers()
        self.wfile.write(b"fake_metric 1")
    def log_message(self, *args): pass
if "--scheduler" in sys.argv:
    subprocess.Popen(["sleep", "60"], start_new_session=True)
for port in ports:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever).start()
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    binary = tmp_path / "opt" / "bin" / "tritonserver"
    backend = tmp_path / "opt" / "backends" / "python"
    for folder in (binary.parent, backend, tmp_path / "models" / "m" / "1"):
        folder.mkdir(parents=True)
    binary.write_text(FAKE.format(python=sys.executable))
    binary.chmod(0o755)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py", "triton_python_backend_stub"):
        (backend / name).write_bytes(b"")
    return binary


def start(fake: Path, *extra: str, **options: float) -> EmbeddedServer:
    server = EmbeddedServer(fake.parents[2] / "models", tritonserver=fake, extra=extra, **options)  # type: ignore[arg-type]
    server.start()
    return server


def test_answers_and_leaves_nothing(fake: Path) -> None:
    server = start(fake)
    runtime_dir, pid = server.runtime_dir, server.pid
    assert server.metrics() == "fake_metric 1"
    assert runtime_dir.stat().st_mode & 0o777 == 0o700
    assert len(str(runtime_dir)) < 60
    assert server.stop() == -signal.SIGTERM  # the fake handles no signal
    assert server.stop() == -signal.SIGTERM
    assert not runtime_dir.parent.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_tries_other_ports_when_one_was_taken(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = [free_ports(3), [1, 2, 3], [1, 2, 3]]
    monkeypatch.setattr(embedded, "free_ports", lambda _n, _host: choices.pop())
    server = start(fake)
    server.stop()
    assert choices == []


def test_gives_up_when_every_port_is_taken(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "free_ports", lambda _n, _host: [1, 2, 3])
    with pytest.raises(ServerError, match=r"^other processes took each of 5 choices of free ports$"):
        start(fake)


def test_names_the_reason_in_the_log(fake: Path) -> None:
    with pytest.raises(ServerError) as failure:
        start(fake, "--fail")
    assert str(failure.value) == (
        "tritonserver ended with exit code 1: failed to load 'm' version 1: Internal: KeyError: no weights"
    )


def test_says_when_it_is_not_ready_in_time(fake: Path) -> None:
    with pytest.raises(ServerError, match=r"^tritonserver was not ready within 0\.3 s: it wrote no log$"):
        start(fake, "--never-ready", ready_timeout_s=0.3)


def test_live_does_not_wait_for_ready(fake: Path) -> None:
    with EmbeddedServer(fake.parents[2] / "models", tritonserver=fake, extra=["--never-ready"], wait="live") as server:
        assert server.stub_pids() == {}


def test_ends_what_runs_on_in_its_runtime_folder(fake: Path) -> None:
    server = start(fake, "--scheduler")
    runtime_dir = str(server.runtime_dir)
    assert len(processes.pids_with("ISOCHRONE_RUNTIME_DIR", runtime_dir)) == 2
    server.stop()
    assert processes.pids_with("ISOCHRONE_RUNTIME_DIR", runtime_dir) == []


def test_a_given_runtime_folder_is_the_callers(fake: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    env = {"ISOCHRONE_RUNTIME_DIR": str(shared)}
    with EmbeddedServer(fake.parents[2] / "models", tritonserver=fake, extra=["--scheduler"], env=env) as server:
        assert server.runtime_dir == shared
    (scheduler,) = processes.pids_with("ISOCHRONE_RUNTIME_DIR", str(shared))
    os.kill(scheduler, signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while processes.pids_with("ISOCHRONE_RUNTIME_DIR", str(shared)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert shared.exists()


def test_ends_the_server_when_the_body_raises(fake: Path) -> None:
    server = EmbeddedServer(fake.parents[2] / "models", tritonserver=fake)
    with pytest.raises(KeyError), server:
        pid = server.pid
        raise KeyError
    assert not Path(f"/proc/{pid}").exists()
