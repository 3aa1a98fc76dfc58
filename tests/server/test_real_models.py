"""Real models served with `backend: "isochrone"` alone: whoever asks, and in whose company, gets ONNX Runtime's answer.

`python -m tests.real_models.fetch` fetches them first.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.onnx_nodes.reference import difference, open_session, run
from tests.real_models.catalog import REAL_MODELS, RealModel
from tests.real_models.fetch import path
from tests.server.busy import device_is_busy
from tests.server.control import EXPLICIT, eventually, load, remember_profile, request
from tests.server.harness import batchmates, write_model

CLIENTS = 8
BARE = 'backend: "isochrone"\n'
ONE_LANE = f'{BARE}parameters {{ key: "device_lanes" value {{ string_value: "1" }} }}\n'
BLOCKING_MS = 2000.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of models that have nothing but their backend's name."""
    with serving(tmp_path_factory.mktemp("bare"), BARE) as server:
        yield server


@pytest.fixture(scope="module")
def one_lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One lane, and a model that keeps it busy: requests wait meanwhile, and become a batch where that may be."""
    repository = tmp_path_factory.mktemp("one_lane")
    blocker = write_model(repository, "blocker", batchmates(BLOCKING_MS), f"{ONE_LANE}max_batch_size: 1\n")
    with serving(repository, ONE_LANE) as server:
        remember_profile(server, blocker, BLOCKING_MS)
        assert load(server, ["blocker"]) == {}
        yield server


@contextmanager
def serving(repository: Path, config: str) -> Iterator[EmbeddedServer]:
    for model in REAL_MODELS:
        if path(model).exists():
            write_model(repository, model.name, path(model).read_bytes(), config)
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        yield server


@pytest.fixture(params=REAL_MODELS, ids=lambda model: model.name)
def model(request: pytest.FixtureRequest) -> RealModel:
    if not path(request.param).exists():
        pytest.skip("the real models are not fetched: python -m tests.real_models.fetch")
    return request.param  # type: ignore[no-any-return]


def test_alone_and_eight_at_a_time(bare: EmbeddedServer, model: RealModel) -> None:
    with Asked(bare, model) as asked:
        asked.check([asked.send(seed).result() for seed in range(CLIENTS)])
        asked.check([future.result() for future in [asked.send(seed) for seed in range(CLIENTS)]])


def test_in_one_batch(one_lane: EmbeddedServer, model: RealModel) -> None:
    with Asked(one_lane, model) as asked:
        with device_is_busy(asked.client):
            before = asked.arrived()
            waiting = [asked.send(seed) for seed in range(CLIENTS)]
            eventually(lambda: asked.arrived() >= before + CLIENTS or any(future.done() for future in waiting))
        asked.check([future.result() for future in waiting])


class Asked:
    """A model for as long as it is loaded, and what it is asked, each time by a client of its own."""

    def __init__(self, server: EmbeddedServer, model: RealModel) -> None:
        self._server, self._model = server, model
        self._session = open_session(path(model))
        self._pool = ThreadPoolExecutor(CLIENTS)
        self.client = triton_grpc.InferenceServerClient(server.grpc_url)

    def __enter__(self) -> Asked:
        assert load(self._server, [self._model.name]) == {}
        return self

    def __exit__(self, *_: object) -> None:
        self.client.unload_model(self._model.name)
        self.client.close()
        self._pool.shutdown()

    def send(self, seed: int) -> Future[Any]:
        return self._pool.submit(self._ask, seed)

    def arrived(self) -> int:
        """Rows that Triton has handed over."""
        statistics = self.client.get_inference_statistics(self._model.name).model_stats
        return sum(int(version.inference_count) for version in statistics)

    def check(self, answers: list[Any]) -> None:
        """Answers to the requests of the seeds 0, 1, … are as ONNX Runtime has them."""
        wrong = [why for seed, answer in enumerate(answers) for why in self._differences(seed, answer)]
        if wrong:
            raise AssertionError("\n".join(wrong))

    def _ask(self, seed: int) -> Any:
        given = {name: array.reshape(array.shape or (1,)) for name, array in self._model.ask(seed).items()}
        with closing(triton_grpc.InferenceServerClient(self._server.grpc_url)) as client:
            try:
                return client.infer(self._model.name, request(triton_grpc, given), client_timeout=60.0)
            except InferenceServerException as error:
                return error

    def _differences(self, seed: int, answer: Any) -> Iterator[str]:
        if isinstance(answer, InferenceServerException):
            yield f"request {seed} failed: {answer}"
            return
        for name, wanted in run(self._session, self._model.ask(seed)).items():
            if why := difference(answer.as_numpy(name), wanted, share=self._model.tolerance):
                yield f"request {seed}: '{name}' {why}"
