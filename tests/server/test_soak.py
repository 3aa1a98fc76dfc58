"""Many small requests: each is answered once, with its own numbers, and no process grows.

`make soak` has the rest: an hour of every kind of request, reloads and cancellations.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, eventually, load, metric, remember_profile
from tests.server.flood import ANSWER_WITHIN_S
from tests.server.harness import mlp, write_model

MODELS = ("one", "two")
CONNECTIONS, IN_FLIGHT = 16, 4
FIRST = 6_000
"""After so many, memory must stay as it is."""
GROWTH_MAX = 1.05
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for seed, name in enumerate(MODELS):
        write_model(tmp_path, name, mlp(16, 4, seed, hidden=128), 'backend: "isochrone"\nmax_batch_size: 8')
    return tmp_path


@pytest.mark.parametrize("requests", [12_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_each_request_is_answered_once_and_nothing_grows(repository: Path, requests: int) -> None:
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for name in MODELS:
            remember_profile(server, repository / name, solo_ms=0.2, max_batch_size=8)
        assert load(server, MODELS) == {}
        flood(server, repository, FIRST, seed=1)
        before = memory_kb(server)
        flood(server, repository, requests - FIRST, seed=2)
        after = memory_kb(server)
        for name in MODELS:
            expect_counts(server, name, requests // len(MODELS))
    assert server.stop() == 0
    grown = {process: (kb, after[process]) for process, kb in before.items() if after[process] > kb * GROWTH_MAX}
    assert not grown, f"(kB after {FIRST}, after {requests} requests): {grown}"


def flood(server: EmbeddedServer, repository: Path, requests: int, seed: int) -> None:
    """Sends that many and checks every answer."""
    command = [sys.executable, "-m", "tests.server.flood", f"--url={server.grpc_url}", f"--repository={repository}"]
    amounts = {"requests": requests, "connections": CONNECTIONS, "in-flight": IN_FLIGHT, "seed": seed}
    command += [f"--{option}={value}" for option, value in amounts.items()]
    done = subprocess.run(
        [*command, "--models", *MODELS], cwd=ROOT, stdout=subprocess.PIPE, timeout=600 + ANSWER_WITHIN_S, check=True
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["outcomes"] == {"answered": requests}
    assert (report["wrong"], report["answered_twice"]) == (0, 0)


def expect_counts(server: EmbeddedServer, name: str, requests: int) -> None:
    """The backend and Triton both counted each request once. The backend's counts follow within a second."""
    eventually(lambda: metric(server, "isochrone_requests_total", model=name) >= requests)
    assert metric(server, "isochrone_requests_total", model=name, outcome="met") == requests
    assert metric(server, "isochrone_requests_total", model=name) == requests
    assert metric(server, "nv_inference_request_success", model=name) == requests
    assert metric(server, "isochrone_fail_open_total", model=name) == 0


def memory_kb(server: EmbeddedServer) -> dict[str, int]:
    """Resident memory of every process of this server."""
    scheduler = int((server.runtime_dir / "cpu.lock").read_text())
    pids = {"tritonserver": server.pid, "scheduler": scheduler, **server.stub_pids()}
    return {process: resident_kb(pid) for process, pid in pids.items()}


def resident_kb(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found.group(1))
