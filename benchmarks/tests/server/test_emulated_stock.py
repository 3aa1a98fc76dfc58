"""Stock Triton's blocking models on the emulated GPU: a real server, no scheduler of ours, one device for all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from backend.engine_process.wire.messages import PROTOCOL
from backend.errors import ConfigError
from backend.server.embedded import EmbeddedServer
from benchmarks.emulated.stock import write_stock_repository
from tests.fakes.emulated import spec, write_spec

DEVICE, SOLO_MS = "emulated-stock-0", 40.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    source, repository = tmp_path_factory.mktemp("emulated"), tmp_path_factory.mktemp("stock")
    for name in ("one", "two"):
        write_spec(source, name, spec(DEVICE, SOLO_MS * 1000, pair_sd=0.0))
    assert write_stock_repository(source, repository) == ["one", "two"]
    with EmbeddedServer(repository) as server:
        yield server
    assert server.stop() == 0


def test_stock_models_run_on_one_emulated_gpu_and_slow_each_other_down(server: EmbeddedServer) -> None:
    def infer(model: str, rows: int = 1) -> tuple[float, tuple[int, ...]]:
        x = triton_grpc.InferInput("x", [rows, 4], "FP32")
        x.set_data_from_numpy(np.ones((rows, 4), np.float32))
        began_s = time.perf_counter()
        with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
            shape = client.infer(model, [x]).as_numpy("y").shape
        return 1e3 * (time.perf_counter() - began_s), shape

    with ThreadPoolExecutor(4) as pool:
        alone_ms = min(infer("one")[0] for _ in range(3))
        together = list(pool.map(infer, ("one", "two") * 2, (1, 1, 2, 3)))

    assert [shape for _, shape in together] == [(1, 2), (1, 2), (2, 2), (3, 2)]
    assert alone_ms >= SOLO_MS * 0.95
    # u is 0.8: two at once cannot be done within 1.6 of one alone; each model's second request shares a batch or waits.
    assert max(ms for ms, _ in together) > 1.5 * SOLO_MS
    assert (Path(server.runtime_dir) / f"{DEVICE}-engines-{PROTOCOL}.lock").exists()
    assert not (Path(server.runtime_dir) / f"{DEVICE}.lock").exists()  # no scheduler


def test_a_repository_without_emulated_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no emulated model; write some with `isochrone emulate`"):
        write_stock_repository(tmp_path, tmp_path / "stock")
    with pytest.raises(ConfigError, match="instances is 0, but must be from 1 to 64"):
        write_stock_repository(tmp_path, tmp_path / "stock", 0)
