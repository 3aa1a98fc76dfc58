"""Samples of a real server, from the environment variable to `isochrone evaluate`; and a disk that takes none."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from backend.commands import main as cli
from backend.scheduler_process.sample_log import VARIABLE
from backend.server.embedded import EmbeddedServer
from predictor.samples import Sample, read_samples
from tests.server.control import eventually, metric, request
from tests.server.harness import mlp, mlp_answer, write_model

pytestmark = pytest.mark.alone


CONFIG = 'backend: "isochrone"\nmax_batch_size: 4\nparameters { key: "device_lanes" value { string_value: "2" } }\n'
MODEL = mlp(depth=4, hidden=1024)
MODELS = ("a", "b")
EACH = 60
INTERFERENCE = "isochrone_interference_seconds_total"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in MODELS:
        write_model(tmp_path / "models", name, MODEL, CONFIG)
    return tmp_path / "models"


def ask(server: EmbeddedServer, model: str, together: threading.Barrier) -> None:
    x = np.ones((1, 16), np.float32)
    expected = mlp_answer(MODEL, x)
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        together.wait(timeout=30.0)
        for _ in range(EACH):
            answer = client.infer(model, request(triton_grpc, {"x": x}), client_timeout=30.0)
            np.testing.assert_allclose(answer.as_numpy("y"), expected, rtol=1e-4)


def ask_both(server: EmbeddedServer) -> None:
    together = threading.Barrier(len(MODELS))
    with ThreadPoolExecutor(len(MODELS)) as pool:
        for future in [pool.submit(ask, server, model, together) for model in MODELS]:
            future.result(timeout=120.0)


def suffered(server: EmbeddedServer, model: str, samples: Sequence[Sample]) -> bool:
    """True where /metrics has all that the model's batches took beyond solo, whoever caused it."""
    beyond_ns = sum(max(0, s.exec_ns - s.solo_ns) for s in samples if s.model == model)
    return metric(server, INTERFERENCE, model=model) == pytest.approx(beyond_ns / 1e9, abs=1e-6)


def test_every_batch_becomes_a_sample_that_evaluate_reads(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "samples.jsonl"
    with EmbeddedServer(repository, env={VARIABLE: str(path)}) as server:
        ask_both(server)
        eventually(lambda: path.exists() and path.read_bytes().count(b"\n") >= EACH * len(MODELS))
        assert metric(server, "isochrone_samples_lost_total") == 0
        samples = read_samples(path).samples
        for model in MODELS:
            eventually(partial(suffered, server, model, samples))
        assert metric(server, INTERFERENCE, model="a", by="b") + metric(server, INTERFERENCE, model="b", by="a") > 0
    assert len(samples) == EACH * len(MODELS)  # one request a batch, since each client waits for its answer
    assert {s.model for s in samples} == set(MODELS)
    assert all(s.exec_ns > 0 and s.solo_ns > 0 and s.device == "cpu" for s in samples)
    beside = [c for s in samples for c in s.co_runners]
    assert beside, "two clients at once, and nothing ran beside anything"
    assert {c.model for c in beside} == set(MODELS)

    monkeypatch.setattr("sys.argv", ["isochrone", "evaluate", str(path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    assert f"{len(samples)} batches tested" in capsys.readouterr().out


def test_a_full_disk_costs_samples_and_nothing_else(repository: Path) -> None:
    with EmbeddedServer(repository, env={VARIABLE: "/dev/full"}) as server:
        ask_both(server)
        ask_both(server)
        eventually(lambda: metric(server, "isochrone_samples_lost_total") > 0)
        asked = 2 * EACH * len(MODELS)
        eventually(lambda: metric(server, "isochrone_requests_total", outcome="met") == asked)
