"""`isochrone route` as a process: its health, its end, and its errors in a sentence."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.route_process.embedded_route import EmbeddedRoute, envoy_binary
from backend.route_process.endpoints_file import Server
from backend.server.ports import free_ports


@pytest.fixture
def endpoints(tmp_path: Path) -> Path:
    """One server, which is not there."""
    http, grpc, state = free_ports(3)
    entry = {"name": "a", "http": f"127.0.0.1:{http}", "grpc": f"127.0.0.1:{grpc}", "state": [f"127.0.0.1:{state}"]}
    file = tmp_path / "endpoints.json"
    file.write_text(json.dumps({"endpoints": [entry]}))
    return file


def command(endpoints: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "backend.commands.main", "route", "--endpoints", str(endpoints), *options]


def run(endpoints: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(endpoints, *options), text=True, capture_output=True, check=False, timeout=60.0)


@contextmanager
def listening() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield str(taken.getsockname()[1])


def test_a_router_without_servers_is_live_but_not_ready_and_says_what_is_wrong() -> None:
    http, grpc, state = free_ports(3)
    server = Server("a", f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", (f"127.0.0.1:{state}",))
    with EmbeddedRoute([server]) as route:
        assert route.router_says("/health/live")[0] == 200
        assert route.router_says("/health/ready")[0] == 503
        assert route.router_says("/elsewhere")[0] == 404
        deadline = time.monotonic() + 20.0
        while "cannot be reached" not in route.log("router") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert f"endpoint 'a': nothing listens at 127.0.0.1:{state}" in route.log("router")
        assert f"endpoint 'a': 127.0.0.1:{http} cannot be reached" in route.log("router")


def test_a_router_ends_at_sigterm(endpoints: Path) -> None:
    port, status = map(str, free_ports(2))
    process = subprocess.Popen(
        command(endpoints, "--port", port, "--status-port", status), stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert "picks for 1 endpoints" in process.stderr.readline()
        process.terminate()
        assert process.wait(30.0) == 0
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


@pytest.mark.parametrize(("option", "other"), [("--port", "--status-port"), ("--status-port", "--port")])
def test_a_port_that_is_taken_is_named(endpoints: Path, option: str, other: str) -> None:
    with listening() as port:
        done = run(endpoints, option, port, other, str(free_ports(1)[0]))
    assert done.returncode == 2
    assert f"port 127.0.0.1:{port} cannot be had" in done.stderr


def test_a_file_of_endpoints_that_is_not_there_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    done = run(tmp_path / "none.json")
    assert done.returncode == 2
    assert done.stderr == f"isochrone: --endpoints {tmp_path}/none.json cannot be read: No such file or directory\n"


def test_envoy_takes_the_configuration_of_servers_with_names(tmp_path: Path, endpoints: Path) -> None:
    """As on Kubernetes. Nothing is looked up to validate it."""
    content = json.loads(endpoints.read_text())
    content["endpoints"][0] |= {"http": "triton-0.triton:8000", "grpc": "triton-0.triton:8001"}
    endpoints.write_text(json.dumps(content))
    written = run(endpoints, "--write-envoy-config", str(tmp_path / "envoy.json"), "--envoy-host", "0.0.0.0")
    assert written.returncode == 0, written.stderr
    validate = [str(envoy_binary()), "--mode", "validate", "--config-path", str(tmp_path / "envoy.json")]
    done = subprocess.run(validate, text=True, capture_output=True, check=False, timeout=60.0)
    assert done.returncode == 0, done.stderr
