"""Lanes whose cores foreign processes in the server's own container keep busy do not starve."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from backend.linux.cpu_topology import cores
from backend.server.embedded import EmbeddedServer
from tests.fakes.foreign_processes import MODEL, run_foreign_processes, write_foreign_process_model
from tests.server.control import EXPLICIT, load, remember_profile, request
from tests.server.harness import batchmates, write_model

pytestmark = [pytest.mark.alone, pytest.mark.skipif(len(cores()) < 2, reason="there is no other core")]

TAKES_MS = 20.0
ALL_CORES = 'parameters { key: "device_lanes" value { string_value: "1" } }\n'
SHARED = 'parameters { key: "engine_process" value { string_value: "shared" } }\n'


@contextmanager
def serving(repository: Path, *configs: str) -> Iterator[tuple[EmbeddedServer, Any]]:
    """Models `model_0` and so on, and the one of foreign processes."""
    write_foreign_process_model(repository)
    names = [f"model_{i}" for i in range(len(configs))]
    folders = [
        write_model(repository, name, batchmates(TAKES_MS), f'backend: "isochrone"\nmax_batch_size: 1\n{config}')
        for name, config in zip(names, configs, strict=True)
    ]
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for folder in folders:
            remember_profile(server, folder, TAKES_MS)
        assert load(server, [*names, MODEL]) == {}
        with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
            yield server, client


def p50_ms(client: Any, model: str, count: int = 15) -> float:
    taken = []
    for _ in range(count):
        began_s = time.perf_counter()
        client.infer(model, request(triton_grpc, {"x": np.zeros((1, 1), np.float32)}))
        taken.append((time.perf_counter() - began_s) * 1e3)
    return statistics.median(taken)


def slowed(client: Any, model: str, on_cores: list[int]) -> float:
    """Slowdown of a request beside foreign processes on these cores."""
    undisturbed_ms = p50_ms(client, model)
    run_foreign_processes(client, on_cores)
    try:
        return p50_ms(client, model) / undisturbed_ms
    finally:
        run_foreign_processes(client, [])


def test_a_lane_does_not_starve_beside_foreign_processes(tmp_path: Path) -> None:
    with serving(tmp_path, "", SHARED) as (_, client):
        for model in ("model_0", "model_1"):
            assert slowed(client, model, cores()[:1]) < 3.0
            assert slowed(client, model, [-1] * len(cores())) < 5.0


def test_a_lane_of_all_cores_does_not_starve_beside_foreign_processes(tmp_path: Path) -> None:
    with serving(tmp_path, ALL_CORES) as (_, client):
        assert slowed(client, "model_0", cores()[-1:]) < 5.0
