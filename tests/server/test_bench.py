"""`isochrone bench` on a real server as a user calls it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from threading import Timer

import pytest

from backend.load.arrivals import Arrival
from backend.load.figures import REQUESTS, RESULTS
from backend.load.generator import LoadInterrupted, run_load
from backend.load.inputs import server_payloads
from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, load, remember_profile
from tests.server.harness import mlp, write_model

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("one", "two")
RATE_PER_S, SECONDS = 40.0, 1.0
# tritonserver 2.51 leaks a request whose cancellation meets its answer, and waits for it when it ends, by default 30 s.
ENDS_WITHIN = "--exit-timeout-secs=5"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("models")
    with EmbeddedServer(repository, extra=[*EXPLICIT, ENDS_WITHIN]) as server:
        load_light(server, repository, MODELS)
        yield server


def load_light(server: EmbeddedServer, repository: Path, models: Sequence[str]) -> None:
    """Models of some 0.1 ms."""
    for seed, name in enumerate(models):
        light = mlp(16, 4, seed, hidden=256)
        folder = write_model(repository, name, light, 'backend: "isochrone"\nmax_batch_size: 8')
        remember_profile(server, folder, solo_ms=0.1, max_batch_size=8)
    assert load(server, models) == {}


def workload(folder: Path, seconds: float = SECONDS, **changed: object) -> Path:
    models = [
        {"model": name, "rate_per_s": RATE_PER_S, "slo_ms": 2_000.0, "priority_class": i + 1} | changed
        for i, name in enumerate(MODELS)
    ]
    path = folder / "workload.json"
    path.write_text(json.dumps({"seconds": seconds, "models": models}))
    return path


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backend.commands.main", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90.0, check=False)


def test_a_load_ends_whenever_it_is_interrupted(server: EmbeddedServer) -> None:
    """gRPC's locks must not be lost to the exception of a signal: closing the channel would wait for ever."""
    arrivals = [Arrival(i / 2_000, "one", 1e3) for i in range(1_000)]
    random = Random(1)
    inputs = server_payloads(server.grpc_url, ["one"])
    for _ in range(20):
        timer = Timer(random.uniform(0.06, 0.4), os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        begun_s = time.monotonic()
        with pytest.raises(LoadInterrupted):
            run_load(server.grpc_url, arrivals, inputs, timeout_s=60.0)
        assert time.monotonic() - begun_s < 5.0


def test_a_load_is_sent_and_told(server: EmbeddedServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    here = [f"--server={name}={server.grpc_url}" for name in ("here", "there")]
    done = bench(workload(tmp_path), *here, "--load=0.5,1", f"--out={out}")
    assert done.returncode == 0, done.stderr
    points = json.loads((out / RESULTS).read_text())["points"]
    assert [(p["target"], p["load"]) for p in points] == [
        ("here", 0.5), ("there", 0.5), ("there", 1.0), ("here", 1.0),
    ]  # fmt: skip
    requests = list(csv.DictReader((out / REQUESTS).read_text().splitlines()))
    assert len(requests) == sum(p["all"]["requests"] for p in points) > 2 * SECONDS * RATE_PER_S
    assert {r["status"] for r in requests} == {"ok"}
    assert {(r["model"], r["priority_class"]) for r in requests} == {("one", "1"), ("two", "2")}
    assert all(float(r["sent_s"]) >= float(r["intended_s"]) for r in requests)
    assert sum(p["all"]["met"] for p in points) > 0.9 * len(requests)
    for name in ("deadlines", "latencies"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "class 2 met %" in done.stdout
    assert "2 models, poisson arrivals over 1 s × 1, seed 1; latencies count from the planned instant" in done.stdout


@pytest.mark.parametrize(
    ("changed", "options", "sentence"),
    [
        ({"model": "three"}, [], "does not serve model 'three': "),
        ({"slo_ms": 1e-3}, [], "the workload allows model 'one' 0.001 ms, but alone it takes "),
        ({}, ["--load=0"], "--load must be numbers above 0 to 1000 with commas between, got '0'"),
        ({"rate_per_s": 1e-9}, [], "no request arrives in 1 s at load 1; ask for more of either"),
        ({}, ["--repeats=0"], "--repeats must lie in 1..1000, got 0"),
    ],
)
def test_what_cannot_be_sent(
    server: EmbeddedServer, tmp_path: Path, changed: dict[str, object], options: list[str], sentence: str
) -> None:
    path = workload(tmp_path)
    if changed:
        asked = json.loads(path.read_text())
        asked["models"] = [asked["models"][0] | changed]
        path.write_text(json.dumps(asked))
    done = bench(path, f"--server={server.grpc_url}", *options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr


def test_nobody_there(tmp_path: Path) -> None:
    done = bench(workload(tmp_path), "--server=127.0.0.1:9")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no server answers gRPC at 127.0.0.1:9: " in done.stderr


def test_a_server_that_goes_away_leaves_what_came_before(tmp_path: Path) -> None:
    path, out = workload(tmp_path, seconds=2.0), tmp_path / "out"
    asked = json.loads(path.read_text())
    path.write_text(json.dumps(asked | {"models": asked["models"][:1]}))
    models = tmp_path / "models"
    (models / "one").mkdir(parents=True)
    with EmbeddedServer(models, extra=EXPLICIT) as server:
        load_light(server, models, ["one"])
        command = [sys.executable, "-m", "backend.commands.main", "bench", str(path), f"--server=it={server.grpc_url}"]
        running = subprocess.Popen(
            [*command, "--load=1,2", f"--out={out}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert running.stdout is not None
        try:
            next(line for line in running.stdout if "it: load 1, 1 of 1" in line)
            time.sleep(1.0)  # into that load
            os.kill(server.pid, signal.SIGKILL)
            said = running.communicate(timeout=60.0)[1]
        finally:
            running.kill()
            running.wait()
    assert running.returncode == 2
    assert said.count("\n") == 1
    assert "went away" in said or "is gone" in said
    rows = list(csv.DictReader((out / REQUESTS).read_text().splitlines()))
    assert {"ok", "failed"} >= {r["status"] for r in rows}
    assert any(r["status"] == "ok" for r in rows)
