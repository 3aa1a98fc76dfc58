"""Load that does not wait for answers: requests leave at their own times, whatever the server does meanwhile.

Plain tritonclient over gRPC from a thread of the test; every request and what became of it is kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tritonclient.grpc as triton_grpc

from tests.server.control import request
from tests.server.harness import mlp_answer
from tests.server.poisson_sender import PoissonSender

ANSWERED_WITHIN_S = 60.0
"""The client gives a request up then. No test may need this long: such a request counts as hanging."""
IN_FLIGHT_MAX = 2_000
_ROWS = 256
"""Different inputs; a request's number says which of them it carries."""


@dataclass
class Asked:
    """One request. Times are monotonic seconds; `answered_s` is 0 while there is neither an answer nor an error."""

    number: int
    sent_s: float
    answered_s: float = 0.0
    error: str = ""
    y: npt.NDArray[np.float32] | None = None

    @property
    def latency_s(self) -> float:
        return self.answered_s - self.sent_s


class OpenLoop:
    """Sends to one model, an `mlp`, at `rate_per_s` with exponential gaps, as long as the context is open.

    Leaving the context waits for the answers. Then `asked` holds every request.
    """

    def __init__(self, url: str, name: str, model: onnx.ModelProto, rate_per_s: float, seed: int = 0) -> None:
        self._client = triton_grpc.InferenceServerClient(url)
        self._name, self._rate_per_s = name, rate_per_s
        random = np.random.default_rng(seed)
        width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        self._x = random.standard_normal((_ROWS, 1, width)).astype(np.float32)
        self._y = [mlp_answer(model, x) for x in self._x]
        thread = f"open-loop-{name}"
        self._sender = PoissonSender(thread, rate_per_s, random, IN_FLIGHT_MAX, self._send, self._fall_behind)
        self.asked: list[Asked] = []

    def __enter__(self) -> OpenLoop:
        self._sender.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sender.stop()
        self._sender.wait(ANSWERED_WITHIN_S + 5.0)
        self._client.close()

    def failures(self) -> list[Asked]:
        """Requests that were not answered with the model's numbers."""
        return [a for a in self.asked if not self._is_right(a)]

    def sent(self, after_s: float = 0.0, before_s: float = float("inf")) -> list[Asked]:
        """Requests that left in this span of monotonic time."""
        return [a for a in self.asked if after_s <= a.sent_s < before_s]

    def _fall_behind(self) -> None:
        raise AssertionError(f"'{self._name}' does not keep up with {self._rate_per_s:g}/s")

    def _send(self) -> None:
        asked = Asked(len(self.asked), time.monotonic())
        self.asked.append(asked)
        inputs = request(triton_grpc, {"x": self._x[asked.number % _ROWS]})
        told = partial(self._told, asked)
        self._client.async_infer(self._name, inputs, told, client_timeout=ANSWERED_WITHIN_S)

    def _told(self, asked: Asked, result: Any, error: Exception | None) -> None:
        if error is None:
            asked.y = result.as_numpy("y")
        else:
            asked.error = str(error)
        asked.answered_s = time.monotonic()
        self._sender.answered()

    def _is_right(self, asked: Asked) -> bool:
        expected = self._y[asked.number % _ROWS]
        return asked.y is not None and np.allclose(asked.y, expected, rtol=1e-3, atol=1e-4)


def longest_s(asked: Sequence[Asked]) -> float:
    """The highest latency among these; infinite where one has no answer."""
    assert asked
    return max(a.latency_s if a.answered_s else float("inf") for a in asked)
