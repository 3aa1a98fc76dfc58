"""A model on several emulated GPUs of one real tritonserver: where its requests go, also when one's processes die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from backend.engine_process.wire.messages import PROTOCOL
from backend.server.embedded import EmbeddedServer
from tests.fakes.emulated import several, write_spec
from tests.server.control import EXPLICIT, eventually, load, metric, request

FAST, SLOW = "emulated-fast-0", "emulated-slow-0"
CONFIG = 'backend: "isochrone"\ninstance_group [{ kind: KIND_CPU }]\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("models")
    write_spec(repository, "one", several(10_000.0, 100_000.0, pair_sd=0.0), CONFIG)
    bad = several()
    bad["devices"][1]["device"]["name"] = FAST
    write_spec(repository, "bad", bad, CONFIG)
    with EmbeddedServer(repository, extra=[*EXPLICIT]) as server:
        assert load(server, ["one"]) == {}
        yield server
    assert server.stop() == 0


def ask(server: EmbeddedServer, requests: int, at_once: int) -> int:
    """Number of right answers."""
    x = request(triton_grpc, {"x": np.ones((1, 4), np.float32)})
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client, ThreadPoolExecutor(at_once) as pool:
        answers = pool.map(lambda _: client.infer("one", x, client_timeout=60.0).as_numpy("y"), range(requests))
        return sum(answer.shape == (1, 2) and not answer.any() for answer in answers)


def served(server: EmbeddedServer, device: str) -> int:
    return sum(
        round(metric(server, "isochrone_requests_total", model="one", device=device, outcome=outcome))
        for outcome in ("met", "missed")
    )


def test_one_at_a_time_goes_to_the_fast_device_and_many_go_to_both(server: EmbeddedServer) -> None:
    assert ask(server, 8, at_once=1) == 8
    eventually(lambda: served(server, FAST) + served(server, SLOW) == 8)
    assert served(server, FAST) >= 7  # a scheduler of a busy machine may answer too late, and then the other is taken
    assert ask(server, 400, at_once=100) == 400
    eventually(lambda: served(server, FAST) + served(server, SLOW) == 408)
    assert served(server, SLOW) > 4
    assert metric(server, "isochrone_waiting_requests", model="one") == 0


def test_a_file_that_names_a_device_twice_is_refused(server: EmbeddedServer) -> None:
    assert "devices[1].device.name is 'emulated-fast-0', but must be a name that" in load(server, ["bad"])["bad"]


@pytest.mark.alone
@pytest.mark.parametrize("lock", [f"{FAST}.lock", f"{FAST}-engines-{PROTOCOL}.lock"])
def test_a_device_whose_scheduler_or_engine_process_is_killed_costs_no_request(
    server: EmbeddedServer, lock: str
) -> None:
    file = Path(server.runtime_dir) / lock
    before, killed = served(server, FAST) + served(server, SLOW), int(file.read_text())
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(ask, server, 300, 10)
        eventually(lambda: served(server, FAST) + served(server, SLOW) > before + 20)
        os.kill(killed, signal.SIGKILL)
        assert answered.result(timeout=60.0) == 300
    eventually(lambda: file.read_text().strip() not in ("", str(killed)))
    eventually(lambda: served(server, FAST) + served(server, SLOW) == before + 300)
    assert metric(server, "isochrone_requests_total", model="one", outcome="failed") == 0
