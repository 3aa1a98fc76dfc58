"""Open-loop load by plain tritonclient over gRPC: requests leave at their own times, whatever the server does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc

from tests.chaos.account import Account, Asked
from tests.chaos.models import MODELS, ROUTED, SPARE
from tests.server.control import request
from tests.server.poisson_sender import PoissonSender

GIVE_UP_S = 30.0
"""A request without an answer after so long hangs."""
_IN_FLIGHT_MAX = 16
"""Of a stream. Where a machine becomes slower than it was when its capacity was measured, as one that others use does,
more would wait longer than a client does, and a request that waits could not be told from one that hangs."""
_OF_SPARE_MAX = 64
"""Of the model whose process is killed: what that took along is out until the client gives up, and others must come."""
_CAPACITY_IN_FLIGHT = 12


class Stream:
    """Requests to one model at one address, from a thread; none while `_IN_FLIGHT_MAX` are out, `_OF_SPARE_MAX` of the
    model whose process is killed.
    """

    def __init__(self, account: Account, url: str, model: str, rate_per_s: float, seed: int) -> None:
        self._account, self._name, self._model = account, model, MODELS[model]
        self._client = triton_grpc.InferenceServerClient(url)
        random = np.random.default_rng(seed)
        most = _OF_SPARE_MAX if model == SPARE else _IN_FLIGHT_MAX
        self._sender = PoissonSender(f"chaos-{model}", rate_per_s, random, most, self._send, self._withhold)
        self._sender.start()

    def stop(self) -> None:
        """Send no more."""
        self._sender.stop()

    def close(self) -> None:
        """Wait for the last answers, at most until each is given up."""
        self._sender.wait(GIVE_UP_S + 5.0)
        self._client.close()

    def _withhold(self) -> None:
        self._account.withhold(time.monotonic())

    def _send(self) -> None:
        asked = self._account.ask(self._name, self._model.tag, self._model.slo_ms / 1e3, time.monotonic())
        self._client.async_infer(
            self._name,
            numbered(asked.number),
            partial(self._answered, asked),
            client_timeout=GIVE_UP_S,
            parameters={"slo_ms": self._model.slo_ms},
        )

    def _answered(self, asked: Asked, result: Any, error: Exception | None) -> None:
        value = None if error else float(result.as_numpy("y")[0, 0])
        self._account.answered(asked, time.monotonic(), "" if error is None else str(error), value)
        self._sender.answered()


class Load:
    """A context manager: a stream to each model, and one to `ROUTED` through Envoy."""

    def __init__(self, account: Account, url: str, routed_url: str | None, rate_per_s: float, seed: int) -> None:
        self._account, self._url, self._routed_url = account, url, routed_url
        self._rate_per_s, self._seed = rate_per_s, seed
        self._streams: list[Stream] = []

    def __enter__(self) -> Load:
        for i, (name, model) in enumerate(MODELS.items()):
            routed = 1 / 3 if name == ROUTED and self._routed_url else 0.0
            rate_per_s = self._rate_per_s * model.share
            self._start(self._url, name, rate_per_s * (1 - routed), self._seed + i)
            if routed and self._routed_url:
                self._start(self._routed_url, name, rate_per_s * routed, self._seed + 100)
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.stop()
        for stream in self._streams:
            stream.close()

    def _start(self, url: str, name: str, rate_per_s: float, seed: int) -> None:
        self._streams.append(Stream(self._account, url, name, rate_per_s, seed))


def numbered(number: int) -> list[Any]:
    """The inputs of a request."""
    return request(triton_grpc, {"x": np.full((1, 1), number, np.float32)})


def capacity_per_s(url: str, seconds: float, seed: int = 0) -> float:
    """Requests per second that the server answers while as many as it takes wait, in the load's mix."""
    names = list(MODELS)
    weights: Mapping[str, float] = {name: MODELS[name].share for name in names}
    end_s = time.monotonic() + seconds

    def one_after_another(worker: int) -> int:
        random, done = np.random.default_rng((seed, worker)), 0
        with closing(triton_grpc.InferenceServerClient(url)) as client:
            while time.monotonic() < end_s:
                name = str(random.choice(names, p=[weights[name] for name in names]))
                client.infer(name, numbered(1), client_timeout=GIVE_UP_S)
                done += 1
        return done

    begin_s = time.monotonic()
    with ThreadPoolExecutor(_CAPACITY_IN_FLIGHT) as pool:
        done = sum(pool.map(one_after_another, range(_CAPACITY_IN_FLIGHT)))
    return done / (time.monotonic() - begin_s)
