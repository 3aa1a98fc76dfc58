"""`interference_aware` in config.pbtxt, and nothing else, decides between stock Triton's order and the scheduler's.

The device has one lane. A long run of another model holds it until every request of a test has arrived, so that what
runs next, and with whom, is a decision and not a matter of timing. Each answer names the requests of its batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton_grpc

from backend.server.embedded import EmbeddedServer
from tests.server.busy import BLOCKING_MS, Asked, Batches, arrived, device_is_busy
from tests.server.control import EXPLICIT, eventually, load, metric, remember_profile
from tests.server.harness import batchmates, write_model

pytestmark = pytest.mark.alone


MAX_BATCH_SIZE = 4
RUN_MS = 30.0
MODEL = batchmates(RUN_MS)
ONE_LANE = 'backend: "isochrone"\nparameters { key: "device_lanes" value { string_value: "1" } }\n'
SUBJECT = ONE_LANE + f"max_batch_size: {MAX_BATCH_SIZE}\n"
AWARE = 'parameters {{ key: "interference_aware" value {{ string_value: "{}" }} }}\n'

# The same on Triton's own dynamic batcher and a blocking Python model; id 0 holds it until the file `go` is there.
STOCK = b"""
import pathlib, time
import numpy as np
import triton_python_backend_utils as pb
class TritonPythonModel:
    def initialize(self, args):
        self.folder = pathlib.Path(args["model_repository"])
    def execute(self, requests):
        ids = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        if ids[0][0, 0] == 0:
            (self.folder / "blocked").touch()
            while not (self.folder / "go").exists():
                time.sleep(0.01)
        time.sleep(0.03)
        mates = np.concatenate(ids).ravel()
        return [pb.InferenceResponse([pb.Tensor("y", np.tile(mates, (len(own), 1)))]) for own in ids]
"""
STOCK_CONFIG = f"""
backend: "python"
max_batch_size: {MAX_BATCH_SIZE}
input [{{ name: "x" data_type: TYPE_FP32 dims: [1] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [-1] }}]
dynamic_batching {{}}
"""


MIXED = (  # in order of arrival; later ones are tighter and of a higher class, one cannot be in time
    Asked(1, priority_class=3),
    Asked(2, rows=2, priority_class=3),
    Asked(3, rows=2, slo_ms=60_000),
    Asked(4, slo_ms=1, priority_class=2),
    Asked(5, slo_ms=40_000, priority_class=1),
    Asked(6, rows=4, slo_ms=20_000, priority_class=1),
    Asked(7, slo_ms=10_000, priority_class=1),
    Asked(8, rows=3, slo_ms=9_000, priority_class=1),
    Asked(9, slo_ms=8_000, priority_class=1),
)
IN_ORDER = [[1, 2, 2], [3, 3, 4, 5], [6, 6, 6, 6], [7, 8, 8, 8], [9]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "blocker", batchmates(BLOCKING_MS), ONE_LANE + "max_batch_size: 1\n")
    write_model(repository, "subject", MODEL, SUBJECT)
    write_model(repository, "stock", STOCK, STOCK_CONFIG, filename="model.py")
    return repository


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        remember_profile(server, repository / "blocker", solo_ms=BLOCKING_MS)
        remember_profile(server, repository / "subject", solo_ms=RUN_MS, max_batch_size=MAX_BATCH_SIZE)
        assert load(server, ["blocker", "stock"]) == {}
        yield server


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Any]:
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        yield client


def batches_of(client: Any, requests: Sequence[Asked]) -> list[list[int]]:
    """How the subject batches requests that arrive in this order while the device is busy."""
    batches = Batches(client, "subject")
    with device_is_busy(client):
        for asked in requests:
            with arrived(client, "subject"):
                batches.ask(asked)
    return batches.wait()


def switch(server: EmbeddedServer, repository: Path, interference_aware: bool) -> None:
    """Edit config.pbtxt and load the model anew."""
    write_model(repository, "subject", MODEL, SUBJECT + AWARE.format("true" if interference_aware else "false"))
    assert load(server, ["subject"]) == {}


def stock_batches_of(client: Any, server: EmbeddedServer, folder: Path, requests: Sequence[Asked]) -> list[list[int]]:
    """The same on stock Triton."""
    batches = Batches(client, "stock")
    batches.ask(Asked(0))
    eventually((folder / "blocked").exists)
    for number, asked in enumerate(requests, start=1):
        batches.ask(asked)
        eventually(lambda n=number: metric(server, "nv_inference_pending_request_count", model="stock") == n)  # type: ignore[misc]
    (folder / "go").touch()
    ended = batches.wait()
    assert ended.pop(0) == [0]
    return ended


def test_off_is_stock_order_and_batching(client: Any, server: EmbeddedServer, repository: Path) -> None:
    switch(server, repository, interference_aware=False)
    assert batches_of(client, MIXED) == IN_ORDER
    assert stock_batches_of(client, server, repository / "stock", MIXED) == IN_ORDER


@pytest.fixture(scope="module")
def aware(server: EmbeddedServer, repository: Path) -> None:
    """From here on; the tests above have it off."""
    switch(server, repository, interference_aware=True)


@pytest.mark.usefixtures("aware")
def test_on_a_tighter_deadline_goes_first(client: Any) -> None:
    requests = [Asked(i, rows=MAX_BATCH_SIZE, slo_ms=60_000 - i * 5_000) for i in range(1, 6)]
    assert batches_of(client, requests) == [[i] * MAX_BATCH_SIZE for i in (5, 4, 3, 2, 1)]


@pytest.mark.usefixtures("aware")
def test_on_a_higher_class_goes_first(client: Any) -> None:
    requests = [Asked(i, rows=MAX_BATCH_SIZE, priority_class=5 - i) for i in range(1, 5)]
    assert batches_of(client, requests) == [[i] * MAX_BATCH_SIZE for i in (4, 3, 2, 1)]


@pytest.mark.usefixtures("aware")
def test_on_the_same_requests_go_in_another_order(client: Any) -> None:
    turn = {mate: number for number, batch in enumerate(batches_of(client, MIXED)) for mate in batch}
    assert turn[9] < turn[6]
    assert turn[9] < turn[3]
