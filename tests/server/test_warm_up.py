"""`model_warmup` where deadlines are strict: Triton's own requests carry none, the first of a client's does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, eventually, load, metric, remember_profile, request
from tests.server.harness import batchmates, write_model

STRICT = (
    'backend: "isochrone"\nmax_batch_size: 4\n'
    'parameters { key: "slo_ms" value { string_value: "0.01" } }\n'
    'parameters { key: "on_miss" value { string_value: "reject" } }\n'
)


def sample(name: str, batch_size: int, count: int) -> str:
    x = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: [1] zero_data: true } }'
    return f'model_warmup {{ name: "{name}" batch_size: {batch_size} count: {count} {x} }}\n'


MODELS = {
    "one": (STRICT + sample("a", 1, 0), 1),
    "several": (STRICT + sample("a", 1, 1) + sample("none", 0, 5) + sample("b", 3, 2), 1 + 2 * 3),
    "instances": (STRICT + "instance_group [{ count: 2 }]\n" + sample("a", 2, 2) + sample("b", 1, 1), 2 * (2 * 2 + 1)),
    "queue": (STRICT + 'parameters { key: "max_queue_size" value { string_value: "1" } }\n' + sample("a", 4, 2), 8),
}
"""With how many requests the warm-up makes."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("models")
    for name, (config, _) in MODELS.items():
        write_model(repository, name, batchmates(5), config)
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for name in MODELS:
            remember_profile(server, repository / name, solo_ms=5, max_batch_size=4)
        assert load(server, MODELS) == {}
        yield server


@pytest.mark.parametrize("name", MODELS)
def test_a_warm_up_is_served_and_only_that(name: str, server: EmbeddedServer) -> None:
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        refused = let_through = 0
        while refused < 3:
            try:
                client.infer(name, request(triton_grpc, {"x": np.ones((1, 1), np.float32)}))
                let_through += 1  # one a second: else a latency believed too high would never be corrected
                assert let_through < 10
            except InferenceServerException as error:
                assert "the request cannot meet its deadline" in str(error)
                refused += 1
        answer = client.infer(name, request(triton_grpc, {"x": np.ones((1, 1), np.float32)}), timeout=60_000_000)
        assert answer.as_numpy("y")[0] == 1
    _, requests = MODELS[name]
    for outcome, count in (("met", requests + 1), ("rejected", refused), ("missed", let_through), ("failed", 0)):
        eventually(partial(counted, server, name, outcome, count))


def counted(server: EmbeddedServer, model: str, outcome: str, count: int) -> bool:
    return metric(server, "isochrone_requests_total", model=model, outcome=outcome) == count
