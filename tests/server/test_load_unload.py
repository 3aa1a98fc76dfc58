"""One model is loaded and unloaded again and again while another one serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import tritonclient.grpc as triton_grpc

from backend.server.embedded import EmbeddedServer
from backend.server.processes import pids_with
from tests.server.burst import Burst
from tests.server.control import EXPLICIT, eventually, load, looks, regions_mapped_by, remember_profile
from tests.server.harness import batchmates, mlp, write_model
from tests.server.open_loop import OpenLoop, longest_s

CYCLES, MANY = 15, 200
WAITS_EVERY = 5
"""In each so-manieth cycle the model is gone before it is loaded again; else the new one starts beside the old one."""
SLACK = {"shared memory": 0, "processes": 0, "open files": 10, "threads": 10}
"""How many of each may come and go with clients' connections; each is fewer than one per cycle."""
STEADY = mlp(16, 4, hidden=256)
# Complete, so that Triton needs no process of its own to complete it at each load.
CONFIG = """
backend: "isochrone"
max_batch_size: 8
input [{{ name: "x" data_type: TYPE_FP32 dims: [{x}] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [{y}] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""
NOT_THERE = "Request for unknown model: 'cycled'"  # what Triton says to requests that come too late


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    folders = [
        write_model(tmp_path, "steady", STEADY, CONFIG.format(x=16, y=16)),
        write_model(tmp_path, "cycled", batchmates(5.0), CONFIG.format(x=1, y=-1)),
    ]
    with EmbeddedServer(tmp_path, extra=[*EXPLICIT, "--disable-auto-complete-config"]) as server:
        for folder in folders:
            remember_profile(server, folder, solo_ms=1, max_batch_size=8)
        yield server


@pytest.mark.parametrize("cycles", [CYCLES, pytest.param(MANY, marks=pytest.mark.slow)])
def test_a_model_comes_and_goes_beside_another(server: EmbeddedServer, cycles: int) -> None:
    assert load(server, ["steady", "cycled"]) == {}
    with OpenLoop(server.grpc_url, "steady", STEADY, rate_per_s=50.0) as steady:
        for cycle in range(cycles):
            come_and_go(server, wait=cycle % WAITS_EVERY == 0)
            if cycle == 0:
                eventually(lambda: len(server.stubs()) == 2)
                before = resources(server)
    assert steady.failures() == []
    assert longest_s(steady.asked) < 5.0
    eventually(lambda: sorted(stub.model for stub in server.stubs()) == ["cycled", "steady"])
    eventually(lambda: all(count <= before[kind] + SLACK[kind] for kind, count in resources(server).items()))
    assert server.stop() == 0


def come_and_go(server: EmbeddedServer, wait: bool) -> None:
    """Unload the model with requests in flight, load it, and see that it answers."""
    old = server.stub_pids()["cycled"]
    burst = Burst(server.grpc_url, "cycled", 4)
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        client.unload_model("cycled")
    try:
        outcomes = burst.outcomes()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{looks(server)}") from None
    assert all(outcome == "right" or NOT_THERE in outcome for outcome in outcomes), outcomes
    if wait:
        eventually(lambda: old not in [stub.pid for stub in server.stubs()])
    assert load(server, ["cycled"]) == {}
    assert Burst(server.grpc_url, "cycled", 1).outcomes() == {"right": 1}


def resources(server: EmbeddedServer) -> dict[str, int]:
    """What a cycle must give back."""
    process = Path(f"/proc/{server.pid}")
    return {
        "shared memory": len(regions_mapped_by(server.pid)),
        "processes": len(pids_with("ISOCHRONE_RUNTIME_DIR", str(server.runtime_dir))),
        "open files": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
    }
