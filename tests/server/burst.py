"""Requests that are sent all at once, so that most of them wait in the server's queue.

They go to a model of `batchmates`, which takes its time and answers with the numbers of all requests of a batch.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc

from tests.server.control import request


class Burst:
    """Requests to a model of `batchmates`, sent at once, and what became of each."""

    def __init__(self, url: str, name: str, requests: int, client_timeout_s: float = 60.0) -> None:
        self._client = triton_grpc.InferenceServerClient(url)
        self._changed = threading.Condition()
        self._answers: dict[int, str] = {}
        self._calls = [self._ask(name, number, client_timeout_s) for number in range(requests)]

    def wait_for_answers(self, count: int) -> None:
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self._answers) >= count, 30.0)
            assert enough, f"of {len(self._calls)} requests {count} were to be answered in 30 s, but: {self._answers}"

    def in_flight(self) -> int:
        with self._changed:
            return len(self._calls) - len(self._answers)

    def cancel(self, numbers: range) -> int:
        """Give up those of them that wait still; returns how many that were."""
        with self._changed:
            waiting = [i for i in numbers if i not in self._answers]
        for i in waiting:
            self._calls[i].cancel()
        return len(waiting)

    def outcomes(self) -> dict[str, int]:
        """Waits for all; "right" or the error, and how often."""
        self.wait_for_answers(len(self._calls))
        self._client.close()
        return {outcome: list(self._answers.values()).count(outcome) for outcome in set(self._answers.values())}

    def _ask(self, name: str, number: int, client_timeout_s: float) -> Any:
        def told(result: Any, error: Exception | None) -> None:
            outcome = str(error) if error else "right" if number in result.as_numpy("y")[0] else "wrong"
            with self._changed:
                self._answers[number] = outcome
                self._changed.notify_all()

        inputs = request(triton_grpc, {"x": np.full((1, 1), number, np.float32)})
        return self._client.async_infer(name, inputs, told, client_timeout=client_timeout_s)
