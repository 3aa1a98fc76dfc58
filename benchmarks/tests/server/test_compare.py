"""Backends that ours is compared with on a real server, NVIDIA's client, and the comparison in its quick form."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.server.embedded import EmbeddedServer
from benchmarks.compare.plan import QUICK
from benchmarks.harness import perf_analyzer
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.model_pairs import measure_pairs
from benchmarks.models.blocking_backend import write_stock
from tests.server.burst import Burst
from tests.server.control import EXPLICIT, load, remember_profile
from tests.server.harness import batchmates, mlp, write_model

ROOT = Path(__file__).resolve().parents[3]
MODELS = ("one", "two")
BLOCKING, MINIMAL_ASYNC = "blocking", "minimal_async"
SLOW_MS = 1_000.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Two models of some 0.1 ms, a slow one, and one each for the backends that ours is compared with."""
    repository = tmp_path_factory.mktemp("models")
    config = 'backend: "isochrone"\nmax_batch_size: 8'
    light = {name: mlp(16, 4, seed, hidden=256) for seed, name in enumerate(MODELS)}
    solo_ms = dict.fromkeys(light, 0.1) | {"slow": SLOW_MS}
    folders = {name: write_model(repository, name, model, config) for name, model in light.items()}
    folders["slow"] = write_model(repository, "slow", batchmates(SLOW_MS), config)
    for name in (BLOCKING, MINIMAL_ASYNC):
        write_stock(write_model(repository, name, batchmates(5.0), ""), 8, 1, minimal_async=name == MINIMAL_ASYNC)
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for name, folder in folders.items():
            remember_profile(server, folder, solo_ms[name], max_batch_size=8)
        assert load(server, [*folders, BLOCKING, MINIMAL_ASYNC]) == {}
        yield server


@pytest.mark.parametrize("model", [BLOCKING, MINIMAL_ASYNC])
def test_what_ours_is_compared_with_answers_right(server: EmbeddedServer, model: str) -> None:
    assert Burst(server.grpc_url, model, 20).outcomes() == {"right": 20}


def test_two_models_are_measured_in_turn(server: EmbeddedServer) -> None:
    """Little's law is of the mean, which a machine that stands still lifts; it lies between half the p50 and the p99.

    The windows' edges blur it: twice either way.
    """
    under_way = 2
    for one, two in measure_pairs(server.grpc_url, ("one", "two"), concurrency=under_way, repeats=2, seconds=0.3):
        for measured in (one, two):
            assert measured.throughput_s * measured.p50_us / 1e6 / 2 < 2 * under_way
            assert measured.throughput_s * measured.p99_us / 1e6 > under_way / 2


def test_a_measurement_that_never_settles_is_told_in_a_sentence(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perf_analyzer, "_ATTEMPTS", 2)
    said = r"^perf_analyzer on model 'slow' at concurrency 1 did not settle in 2 attempts of 0.3 s: [^\n]+$"
    with pytest.raises(BenchmarkError, match=said):
        perf_analyzer.measure(server.grpc_url, "slow", 1, 0.3)


def test_the_comparison_runs_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.compare", "--quick", f"--folder={tmp_path / 'records'}"]
    command += [f"--out={tmp_path / 'docs' / 'bench.md'}", f"--samples={tmp_path / 'none'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240.0, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "docs" / "bench.md").read_text()
    for server in QUICK.servers:
        assert f"| {server} |" in text or f"| **{server}** |" in text
    assert "The scheduler's process used" in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / "docs" / line.split("(")[1].rstrip(")")).is_file()
    assert "| 0.7 |" in text.split("### Where a request's time went")[1].split("### The simulator")[0]
    assert "| 0.7 |" in text.split("### The simulator beside the server")[1]
    turns = {path: path.stat().st_mtime_ns for path in (tmp_path / "records" / "turns").glob("*.json")}
    assert len(turns) == len(QUICK.servers)
    for path in turns:
        kept = json.loads(path.read_text())
        assert [m["load"] for m in kept["measured"]] == list(QUICK.loads)
        assert bool(kept["breakdowns"]) == ("recording" in path.name), "looking into a server takes pauses"
        assert not [o for m in kept["measured"] for o in m["outcomes"] if o["status"] == "failed"]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60.0, check=True)
    assert "about 0 minutes" in again.stdout
    assert turns == {path: path.stat().st_mtime_ns for path in turns}
