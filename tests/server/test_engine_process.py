"""Models whose engines live in one process: what they answer, what they hold, and what comes of it when it dies."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton_grpc
from onnx import helper
from tritonclient.utils import InferenceServerException

from backend.device_process import LINGER_S
from backend.engine_process.wire.messages import PROTOCOL
from backend.engines.tensorrt.plan_facts import PlanFacts, facts_path
from backend.engines.tensorrt.plan_runtime import OptimizationProfile, PlanTensor
from backend.server.embedded import EmbeddedServer
from backend.server.processes import pids_with
from backend.tensors import Datatype
from tests.server.control import EXPLICIT, eventually, load, metric, remember_profile, request
from tests.server.harness import graph, mlp, write_model
from tests.server.open_loop import OpenLoop, longest_s

pytestmark = pytest.mark.alone


RATE_PER_S = 50.0
RECOVERED_WITHIN_S = 10.0
"""A Python process starts and loads its models: a second here, several times that where others use the machine too."""
ONE, TWO = (mlp(16, 4, seed, hidden=768) for seed in (1, 2))  # about 1 ms
TABLE = graph(
    [helper.make_node("Gather", ["table", "x"], ["y"])],
    {"x": (np.int64, ["batch", 1])},
    {"y": (np.float32, ["batch", 1])},
    {"table": np.arange(10, dtype=np.float32)},
)
# Complete, so that Triton needs no process of its own to complete it at each load.
CONFIG = """
backend: "isochrone"
max_batch_size: 8
input [{{ name: "x" data_type: {x} dims: [{dims}] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [{dims}] }}]
instance_group [{{ kind: KIND_CPU count: {instances} }}]
parameters {{ key: "engine_process" value {{ string_value: "{where}" }} }}
parameters {{ key: "engine" value {{ string_value: "{engine}" }} }}
"""
WEIGHTS_BYTES = 4 * 2 * 2048**2  # of which a session may have a second copy in another order


@dataclass(frozen=True)
class Model:
    """Enough of a model to write it down."""

    graph: onnx.ModelProto
    where: str = "shared"
    instances: int = 1
    engine: str = "onnxruntime"

    def config(self) -> str:
        x, dims = ("TYPE_INT64", 1) if self.graph is TABLE else ("TYPE_FP32", 16)
        return CONFIG.format(x=x, dims=dims, instances=self.instances, where=self.where, engine=self.engine)


MODELS: Mapping[str, Model] = {
    "one": Model(ONE),
    "one_own": Model(ONE, "own"),
    "two": Model(TWO),
    "table": Model(TABLE),
    "table_own": Model(TABLE, "own"),
    "bad": Model(ONE, engine="tensorrt"),  # a plan, where there is no GPU
    "bad_own": Model(ONE, "own", engine="tensorrt"),
    "heavy": Model(mlp(16, 4, seed=3, hidden=2048)),
    "heavy_twice": Model(mlp(16, 4, seed=4, hidden=2048), instances=2),
}


def write_plan(plan: Path) -> None:
    """What the model's own process needs to know of it lies beside it; opening it takes a GPU."""
    x, y = (PlanTensor(name, Datatype.FP32, (-1, 16), name == "x") for name in ("x", "y"))
    profile = OptimizationProfile({"x": (1, 16)}, {"x": (8, 16)}, {"x": (8, 16)})
    plan.write_bytes(b"a plan")
    facts = PlanFacts(1, len(b"a plan"), "10.0", "a GPU", "9.0", "model", "0", (x, y), (profile,))
    facts_path(plan).write_bytes(msgspec.json.encode(facts))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("models")
    for name, model in MODELS.items():
        folder = write_model(repository, name, model.graph, model.config())
        if model.engine == "tensorrt":
            write_plan(folder / "1" / "model.plan")
    with EmbeddedServer(repository, extra=[*EXPLICIT, "--disable-auto-complete-config"]) as server:
        for name, model in MODELS.items():
            if model.engine == "onnxruntime":
                remember_profile(server, repository / name, solo_ms=1, max_batch_size=8)
        assert load(server, ["one", "one_own", "two", "table", "table_own"]) == {}
        yield server
    assert server.stop() == 0


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[triton_grpc.InferenceServerClient]:
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        yield client


def engine_process(server: EmbeddedServer) -> int:
    return int((server.runtime_dir / f"cpu-engines-{PROTOCOL}.lock").read_text())


def engine_processes(server: EmbeddedServer) -> list[int]:
    pids = pids_with("ISOCHRONE_RUNTIME_DIR", str(server.runtime_dir))
    return [pid for pid in pids if b"backend.engine_process.process" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def memory_bytes(pid: int) -> int:
    """In RAM, what it shares with others included."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def held(pid: int) -> dict[str, int]:
    """What a model that is gone must have given back."""
    return {what: sum(1 for _ in Path(f"/proc/{pid}/{what}").iterdir()) for what in ("fd", "task")}


def loaded(server: EmbeddedServer, model: str) -> int:
    """How often the engine process loaded it."""
    return (server.runtime_dir / f"cpu-engines-{PROTOCOL}.log").read_text().count(f"/{model}/1/model.onnx")


def test_answers_are_those_of_an_engine_in_the_models_own_process(client: triton_grpc.InferenceServerClient) -> None:
    random = np.random.default_rng(0)
    for rows in range(1, 9):
        x = random.standard_normal((rows, 16)).astype(np.float32)
        shared, own = (client.infer(name, request(triton_grpc, {"x": x})).as_numpy("y") for name in ("one", "one_own"))
        np.testing.assert_array_equal(shared, own, strict=True)


def test_all_models_of_the_device_share_one_process(server: EmbeddedServer) -> None:
    assert engine_processes(server) == [engine_process(server)]
    assert [loaded(server, model) for model in ("one", "one_own", "two", "table")] == [1, 0, 1, 1]


def test_a_run_that_raises_says_the_same(client: triton_grpc.InferenceServerClient) -> None:
    sentences = []
    for name in ("table", "table_own"):
        with pytest.raises(InferenceServerException) as caught:
            client.infer(name, request(triton_grpc, {"x": np.array([[300]])}))
        assert caught.value.status() == "StatusCode.INTERNAL"
        sentences.append(caught.value.message().replace(f"model '{name}'", "model"))
        assert client.infer(name, request(triton_grpc, {"x": np.array([[3]])})).as_numpy("y") == 3
    assert sentences[0] == sentences[1]
    assert "idx=300 must be within" in sentences[0]


def test_a_model_that_cannot_be_loaded_says_the_same_and_the_others_serve(server: EmbeddedServer) -> None:
    with OpenLoop(server.grpc_url, "one", ONE, RATE_PER_S) as other:
        told = load(server, ["bad", "bad_own"])
    assert other.failures() == []
    assert told["bad"].replace("/bad/", "/bad_own/").replace("'bad'", "'bad_own'") == told["bad_own"]
    assert "isochrone cannot load model 'bad': a plan needs a GPU with NVIDIA's driver" in told["bad"]


def test_the_weights_of_two_instances_are_in_memory_once(
    server: EmbeddedServer, client: triton_grpc.InferenceServerClient
) -> None:
    process = engine_process(server)
    sizes = [memory_bytes(process)]
    for name in ("heavy", "heavy_twice"):
        assert load(server, [name]) == {}
        for _ in range(4):  # Triton gives them to its instances in turn
            client.infer(name, request(triton_grpc, {"x": np.ones((1, 16), np.float32)}))
        sizes.append(memory_bytes(process))
    assert len([stub for stub in server.stubs() if stub.model == "heavy_twice"]) == 2
    assert loaded(server, "heavy_twice") == 1
    once, twice = np.diff(sizes)
    assert once > 0.9 * WEIGHTS_BYTES
    assert twice < 1.4 * once
    for name in ("heavy", "heavy_twice"):
        client.unload_model(name)
    eventually(lambda: memory_bytes(process) < sizes[0] + 0.5 * WEIGHTS_BYTES)


@pytest.mark.parametrize(
    ("how", "noticed_within_s"), [(signal.SIGKILL, 0.0), (signal.SIGSTOP, 15.0)], ids=["dies", "hangs"]
)
def test_an_engine_process_that_dies_or_hangs_costs_no_request_and_is_replaced(
    server: EmbeddedServer, how: signal.Signals, noticed_within_s: float
) -> None:
    before = loaded(server, "one"), loaded(server, "two")
    with ExitStack() as stack:
        models = {"one": ONE, "two": TWO}
        loops = [stack.enter_context(OpenLoop(server.grpc_url, n, m, RATE_PER_S)) for n, m in models.items()]
        time.sleep(1.0)
        first, killed_s = engine_process(server), time.monotonic()
        os.kill(first, how)
        eventually(lambda: (loaded(server, "one"), loaded(server, "two")) == (before[0] + 1, before[1] + 1))
        time.sleep(1.0)
    for loop in loops:
        assert loop.failures() == []
        assert longest_s(loop.sent(killed_s - 0.5)) < noticed_within_s + RECOVERED_WITHIN_S
    assert metric(server, "isochrone_requests_total", outcome="failed", model="one") == 0
    assert engine_processes(server) == [engine_process(server)]
    assert engine_process(server) != first


def test_models_that_come_and_go_leave_nothing(
    server: EmbeddedServer, client: triton_grpc.InferenceServerClient
) -> None:
    def ask() -> None:
        client.infer("two", request(triton_grpc, {"x": np.ones((1, 16), np.float32)}))

    process = engine_process(server)
    client.unload_model("two")
    eventually(lambda: "two" not in server.stub_pids())
    before = held(process)
    for _ in range(3):
        assert load(server, ["two"]) == {}
        ask()
        client.unload_model("two")
        eventually(lambda: "two" not in server.stub_pids())
    eventually(lambda: held(process) == before)
    for name in ("one", "table"):
        client.unload_model(name)
    eventually(lambda: not engine_processes(server), timeout_s=LINGER_S + 10.0)
    assert load(server, ["two"]) == {}
    ask()
    assert engine_processes(server) == [engine_process(server)]
