"""A device that is busy while requests arrive, so that what runs next is a decision and not a matter of timing.

Needs a device of one lane, the model `blocker` and models of `batchmates`, whose answers name the requests of a batch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc

from tests.server.control import eventually, request

BLOCKING_MS = 2000.0
"""How long the model `blocker` runs on a slow core; a fast one takes less than half of it."""


@dataclass(frozen=True)
class Asked:
    """One request. id: the value of each of its rows."""

    id: int
    rows: int = 1
    slo_ms: float | None = None
    priority_class: int | None = None

    @property
    def parameters(self) -> dict[str, float | int]:
        given = {"slo_ms": self.slo_ms, "priority_class": self.priority_class}
        return {name: value for name, value in given.items() if value is not None}


class Batches:
    """Batches as their requests' answers tell of them, in the order in which they ended."""

    def __init__(self, client: Any, model: str) -> None:
        self._client, self._model = client, model
        self._lock = threading.Lock()
        self._sent = self._answered = 0
        self.ended: list[list[int]] = []
        self.errors: list[Any] = []

    def ask(self, asked: Asked) -> Any:
        """Send without waiting for the answer; returns what can be cancelled."""
        x = np.full((asked.rows, 1), asked.id, np.float32)
        self._sent += 1
        inputs = request(triton_grpc, {"x": x})
        return self._client.async_infer(self._model, inputs, self._answer, parameters=asked.parameters)

    def _answer(self, result: Any, error: Any) -> None:
        with self._lock:
            self._answered += 1
            if error is not None:
                self.errors.append(error)
                return
            mates = [int(mate) for mate in result.as_numpy("y")[0]]
            if mates not in self.ended:
                self.ended.append(mates)

    def wait(self) -> list[list[int]]:
        eventually(lambda: self._answered == self._sent, timeout_s=60)
        assert self.errors == []
        return self.ended


@contextmanager
def device_is_busy(client: Any) -> Iterator[None]:
    """For a second, with a run that started before the body does; fails if the body took longer."""
    blocker = Batches(client, "blocker")
    with arrived(client, "blocker"):
        blocker.ask(Asked(0))
    yield
    assert blocker.ended == [], "the requests did not arrive in time"
    assert blocker.wait() == [[0]]


@contextmanager
def arrived(client: Any, model: str) -> Iterator[None]:
    """Returns once Triton has handed over the one request that the body sent: it counts what `execute` returned."""

    def count() -> int:
        statistics = client.get_inference_statistics(model).model_stats
        return sum(int(version.execution_count) for version in statistics)

    before = count()
    yield
    eventually(lambda: count() > before)
