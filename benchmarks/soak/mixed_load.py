"""Clients that send, check and count, each on a thread of its own, until they are stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from benchmarks.soak.bursts import Burst
from benchmarks.soak.models import SoakModel, SoakRequest, numbered
from benchmarks.soak.plan import SoakPlan
from benchmarks.soak.reloads import Reloads
from benchmarks.soak.tally import ANSWERED, INVALID, TRITON, WRONG, Tally, outcome_of
from benchmarks.soak.transports import Connect, Grpc, GrpcStream, Http, SharedMemory, Transport

_REQUESTS_PER_CONNECTION = 200
_REFUSED_SHARE = 0.02
"""Of the requests that cannot be read, once for a parameter and once for a data type."""
_REFUSED_WHERE = ("batched", "lengths")
_LARGE_PAUSES = 25.0
"""Pauses of other clients between two large answers."""
_CLIENTS: Sequence[tuple[str, Connect]] = (
    ("batched", Grpc),
    ("batched", Http),
    ("batched", GrpcStream),
    ("in_order", Grpc),
    ("in_order", Http),
    ("in_engine_process", Grpc),
    ("in_engine_process", GrpcStream),
    ("reloaded", Grpc),
    ("comes_and_goes", Grpc),
    ("comes_and_goes", Http),
    ("lengths", Grpc),
    ("lengths", Http),
    ("texts", Grpc),
    ("texts", Http),
    ("large", Grpc),
    ("large", Http),
    ("shared", SharedMemory),
    ("strict", Grpc),
    ("strict", Http),
    ("strict", GrpcStream),
)
_GIVEN_UP_BURST, _GIVEN_UP_AFTER, _GIVEN_UP_PAUSES = 48, 32, 5.0
"""Requests of a burst, those of them that are not given up, and pauses between two such bursts."""
_SHORT_QUEUE_BURST = 16
"""Requests of a burst that is too long for its model's queue."""
_GIVEN_UP, _SHORT_QUEUE, _RELOADS = "given_up", "short_queue", "reloads"
PARTS = (*dict.fromkeys(model for model, _ in _CLIENTS), _GIVEN_UP, _SHORT_QUEUE, _RELOADS)
"""Of a mixed load, by name: the clients of a model, bursts, reloads."""


@dataclass(frozen=True)
class Client:
    """One client of one model."""

    model: SoakModel
    connect: Connect
    pause_s: float

    def run(self, server: EmbeddedServer, tally: Tally, random: Generator, stopping: threading.Event) -> None:
        """Ask, one request after the other, with a new connection now and then."""
        while not stopping.is_set():
            transport = self.connect(server)
            try:
                for _ in range(_REQUESTS_PER_CONNECTION):
                    self._ask(transport, tally, random)
                    if stopping.wait(random.exponential(self.pause_s)):
                        break
            finally:
                transport.close()

    def _ask(self, transport: Transport, tally: Tally, random: Generator) -> None:
        name = self.model.name
        request = self.model.draw(random)
        if name in _REFUSED_WHERE:
            request = _broken(request, random.random())
        tally.sent(name)
        try:
            right = request.right(transport.ask(name, request)) and not request.refused
            tally.ended(name, ANSWERED if right else WRONG)
        except InferenceServerException as error:
            tally.ended(name, outcome_of(error))


def _broken(request: SoakRequest, drawn: float) -> SoakRequest:
    """The request, or one that cannot be read in its place."""
    if drawn < _REFUSED_SHARE / 2:
        return replace(request, parameters={"slo_ms": -1.0}, refused=INVALID)
    if drawn < _REFUSED_SHARE:
        return replace(request, inputs={n: a.astype(np.float64) for n, a in request.inputs.items()}, refused=TRITON)
    return request


class MixedLoad:
    """All clients, bursts and reloads; a context that ends once every request has ended.

    only: one of `PARTS`; None: all of them.
    """

    def __init__(
        self,
        server: EmbeddedServer,
        models: Sequence[SoakModel],
        plan: SoakPlan,
        tally: Tally,
        reloads: Reloads,
        only: str | None = None,
    ) -> None:
        self._only = only
        self._server, self._plan, self._tally, self._reloads = server, plan, tally, reloads
        self._models = {model.name: model for model in models}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.errors: list[str] = []
        """Of clients that broke off."""

    def __enter__(self) -> MixedLoad:
        for number, (name, connect) in enumerate(_CLIENTS):
            pause_s = self._plan.pause_s * (_LARGE_PAUSES if name == "large" else 1.0)
            client = Client(self._models[name], connect, pause_s)
            random = np.random.default_rng((self._plan.seed, number))
            self._start(name, self._run_client(client, random))
        given_up_s = _GIVEN_UP_PAUSES * self._plan.bursts_s
        self._start(_GIVEN_UP, self._bursts(_GIVEN_UP, _GIVEN_UP_BURST, _GIVEN_UP_AFTER, given_up_s))
        self._start(_SHORT_QUEUE, self._bursts(_SHORT_QUEUE, _SHORT_QUEUE_BURST, None, self._plan.bursts_s))
        self._start(_RELOADS, lambda: self._reloads.run(self._stopping))
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run_client(self, client: Client, random: Generator) -> Callable[[], None]:
        return lambda: client.run(self._server, self._tally, random, self._stopping)

    def _bursts(self, name: str, requests: int, given_up_after: int | None, pause_s: float) -> Callable[[], None]:
        def run() -> None:
            random = np.random.default_rng((self._plan.seed, requests))
            while not self._stopping.wait(random.exponential(pause_s)):
                Burst(self._server, name, [numbered(n) for n in range(requests)], self._tally).run(given_up_after)

        return run

    def _start(self, name: str, work: Callable[[], None]) -> None:
        if self._only not in (None, name):
            return

        def run() -> None:
            try:
                work()
            except Exception as error:  # told in the report, where it fails the soak; the others go on
                self.errors.append(f"{name}: {error!r}")

        thread = threading.Thread(target=run, name=f"soak {name}", daemon=True)
        thread.start()
        self._threads.append(thread)
