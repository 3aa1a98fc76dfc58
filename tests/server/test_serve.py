"""`isochrone serve` and EmbeddedServer with a real tritonserver and stock Python models."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton_http

from backend.server.embedded import EmbeddedServer
from backend.server.interpreter import libpython_dir, libpython_of
from backend.server.locate import TritonServer, locate
from backend.server.ports import free_ports
from tests.server.control import request
from tests.server.harness import mlp, mlp_answer, write_model

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
backend: "%s"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [4] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [4] }]
"""
# Waits as many seconds as the first element of a batch says.
IDENTITY = b"""
import time
import triton_python_backend_utils as pb
class TritonPythonModel:
    def execute(self, requests):
        tensors = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        time.sleep(max(float(x[0, 0]) for x in tensors))
        return [pb.InferenceResponse([pb.Tensor("y", x)]) for x in tensors]
"""
FAILS = b"""
class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("this model has no weights")
    def execute(self, requests): ...
"""
LOADS_SLOWLY = b"""
import pathlib, time
class TritonPythonModel:
    def initialize(self, args):
        pathlib.Path(args["model_repository"], "loading").touch()
        time.sleep(60)
    def execute(self, requests): ...
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "models"
    write_model(repository, "echo", IDENTITY, CONFIG % "python", filename="model.py")
    return repository


@pytest.mark.usefixtures("repository")
def test_serve_answers_and_drains_on_sigterm(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("raise RuntimeError('the user\\'s own model.py was imported')")
    answers: list[float] = []
    with serving(tmp_path, "models") as (process, url):
        assert ask(url, 0.0) == 0.0
        slow = threading.Thread(target=lambda: answers.append(ask(url, 1.0)))
        slow.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        slow.join()
        _, errors = process.communicate(timeout=30)
    assert answers == [1.0]
    assert process.returncode == 0
    assert errors.startswith("isochrone: starting ")
    assert "isochrone: tritonserver" not in errors


def test_serve_stopped_while_a_model_loads(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models", "slow", LOADS_SLOWLY, CONFIG % "python", filename="model.py")
    with serving(tmp_path, "models", wait=False) as (process, _):
        wait_for((folder / "loading").exists)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    # Triton handles signals only once its models are loaded: it dies of this one, as a shell would report it.
    assert process.returncode == 128 + signal.SIGINT


@pytest.mark.parametrize("mode", ["explicit", "poll"])
def test_serve_starts_empty_where_models_may_come(mode: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    extra = ("--", f"--model-control-mode={mode}", "--repository-poll-secs=1")
    with serving(tmp_path, "models", extra=extra) as (process, url):
        write_model(tmp_path / "models", "mine", mlp(), 'backend: "isochrone"\nmax_batch_size: 8\n')
        client = triton_http.InferenceServerClient(url)
        if mode == "explicit":
            client.load_model("mine")
        wait_for(lambda: client.is_model_ready("mine"))
        x = np.ones((1, 16), np.float32)
        answer = client.infer("mine", request(triton_http, {"x": x})).as_numpy("y")
        client.close()
        np.testing.assert_allclose(answer, mlp_answer(mlp(), x), rtol=1e-4)
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_serve_ends_though_a_model_loads_for_ever(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    extra = ("--", "--model-control-mode=explicit", "--exit-timeout-secs=1")
    with serving(tmp_path, "models", extra=extra) as (process, url):
        folder = write_model(tmp_path / "models", "slow", LOADS_SLOWLY, CONFIG % "python", filename="model.py")
        loading = threading.Thread(target=load_in_vain, args=(url, "slow"))
        loading.start()
        wait_for((folder / "loading").exists)
        stubs = stubs_of_model("slow")
        began_s = time.monotonic()
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - began_s < 15.0
        loading.join()
    assert process.returncode == 128 + signal.SIGKILL
    sentence = (
        "isochrone: tritonserver did not end within 6 s, its exit timeout and some, so it is killed; "
        "a model whose load does not end keeps it"
    )
    assert [line for line in errors.splitlines() if line.startswith("isochrone: tritonserver")] == [sentence]
    assert stubs
    assert not stubs_of_model("slow") & stubs


def load_in_vain(url: str, model: str) -> None:
    with closing(triton_http.InferenceServerClient(url, network_timeout=60.0)) as client, suppress(Exception):
        client.load_model(model)


def stubs_of_model(model: str) -> set[int]:
    """Processes of Triton's that run one of this name."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"/{model}/1/model.py".encode() in (process / "cmdline").read_bytes():
                found.add(int(process.name))
    return found


@pytest.mark.usefixtures("repository")
def test_server_ends_when_serve_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, "models") as (process, url):
        process.kill()
        process.wait()
        host, port = url.split(":")
        wait_for(lambda: not listens(host, int(port)))
    for folder in Path(os.environ["TMPDIR"]).glob("isochrone-*"):  # nobody is left to remove it
        subprocess.run(["rm", "-r", str(folder)], check=True)


@pytest.mark.usefixtures("repository")
def test_serve_names_a_busy_port(tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        done = run_serve(tmp_path, "--model-repository", "models", "--grpc-port", str(port))
    assert done.returncode == 2
    assert done.stderr == (f"isochrone: port {port} on 127.0.0.1 is already in use; choose another with --grpc-port\n")


def test_serve_names_a_missing_repository(tmp_path: Path) -> None:
    done = run_serve(tmp_path, "--model-repository", "nowhere")
    assert (done.returncode, done.stderr) == (2, "isochrone: --model-repository nowhere does not exist\n")


def test_serve_reports_a_server_that_fails(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "bad", FAILS, CONFIG % "python", filename="model.py")
    ports = [str(port) for port in free_ports(3)]
    done = run_serve(tmp_path, "--model-repository", "models", *port_options(ports))
    assert done.returncode == 1
    assert "this model has no weights" in done.stderr
    assert done.stderr.endswith("isochrone: tritonserver ended with exit code 1; its log above says why\n")


def test_embedded_server_leaves_nothing_when_it_was_killed(repository: Path) -> None:
    write_model(repository, "bad", FAILS, CONFIG % "python", filename="model.py")
    server = EmbeddedServer(repository, extra=["--exit-on-error=false"], wait="live")
    try:
        server.start()
        assert "nv_inference_request_success" in server.metrics()
        assert ask(server.http_url, 0.0) == 0.0
        assert set(server.stub_pids()) == {"echo"}
        for pid in (server.pid, *server.stub_pids().values()):  # neither can clean up after itself
            os.kill(pid, signal.SIGKILL)
    finally:
        code = server.stop()
    assert code == -signal.SIGKILL
    assert "successfully loaded 'echo'" in server.log_text()


def test_an_installed_server_keeps_its_own_backends(tmp_path: Path) -> None:
    binary = installed_layout(tmp_path / "opt", locate())
    theirs = tmp_path / "opt" / "backends" / "theirs"
    theirs.mkdir()
    (theirs / "model.py").write_bytes(IDENTITY)
    folder = write_model(tmp_path / "models", "echo", b"", CONFIG % "theirs")
    with EmbeddedServer(folder.parent, tritonserver=binary) as server:
        assert ask(server.http_url, 0.0) == 0.0
        running = Path(f"/proc/{server.pid}/exe").resolve()
    assert running == binary


def installed_layout(prefix: Path, server: TritonServer) -> Path:
    """The located server's files laid out as in /opt/tritonserver of NVIDIA's container; returns the binary."""
    libpython = libpython_of(server.stub)
    assert libpython is not None
    libraries = [file for folder in server.library_dirs for file in folder.iterdir()]
    files = {
        "bin": [server.binary],
        "backends/python": [*server.python_backend.glob("*.*"), server.stub],
        "lib": [*libraries, libpython_dir(libpython.soname, server.library_dirs) / libpython.soname],
    }
    for name, sources in files.items():
        (prefix / name).mkdir(parents=True, exist_ok=True)
        for source in sources:
            target = prefix / name / source.name
            if source.is_file() and not target.exists():
                target.symlink_to(source) if name == "lib" else target.write_bytes(source.read_bytes())
                target.chmod(0o755)
    return prefix / "bin" / "tritonserver"


def ask(url: str, value: float) -> float:
    client = triton_http.InferenceServerClient(url)
    x = triton_http.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.full((1, 4), value, np.float32))
    try:
        y = client.infer("echo", [x]).as_numpy("y")
    finally:
        client.close()  # Triton waits for open connections before it ends
    assert y is not None
    return float(y[0, 0])


@contextmanager
def serving(
    cwd: Path, repository: str, wait: bool = True, extra: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    ports = [str(port) for port in free_ports(3)]
    argv = serve_command("--model-repository", repository, *port_options(ports), *extra)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=cwd, env=environment(), text=True, stdout=pipe, stderr=pipe) as process:
        try:
            if wait:
                wait_for(lambda: listens("127.0.0.1", int(ports[2])))  # Triton opens the metrics port last
            yield process, f"127.0.0.1:{ports[0]}"
        finally:
            process.terminate()


def run_serve(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        serve_command(*arguments), cwd=cwd, env=environment(), text=True, capture_output=True, timeout=30, check=False
    )


def serve_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "backend.commands.main", "serve", *arguments]


def port_options(ports: Sequence[str]) -> list[str]:
    return ["--http-port", ports[0], "--grpc-port", ports[1], "--metrics-port", ports[2]]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def wait_for(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)
