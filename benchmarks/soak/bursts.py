"""Requests that are sent all at once over gRPC, some of which are given up while they wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import tritonclient.grpc as triton_grpc

from backend.load.server_metrics import parse
from backend.server.embedded import EmbeddedServer
from benchmarks.soak.models import SoakRequest
from benchmarks.soak.tally import ANSWERED, WRONG, Tally, outcome_of
from benchmarks.soak.transports import ANSWERED_WITHIN_S
from tests.server import control

_SEEN_WITHIN_S = 10.0
_LOOK_S = 0.1
_FAR = 20
"""Requests between the last answer and the first one that is given up; the server answers some before it hears of that.
"""


class Burst:
    """A burst to one model, on a connection of its own."""

    def __init__(self, server: EmbeddedServer, model: str, requests: Sequence[SoakRequest], tally: Tally) -> None:
        self._server, self._model, self._requests, self._tally = server, model, requests, tally
        self._changed = threading.Condition()
        self._ended: set[int] = set()

    def run(self, given_up_after: int | None = None) -> None:
        """Send, give up all but the first so many, and wait for every outcome.

        They are given up once the backend has them: of one that Triton has not read yet nobody counts anything. And
        while they are far behind what is answered just now: tritonserver 2.51 leaks a request, or crashes, where its
        cancellation meets its answer.
        """
        client = triton_grpc.InferenceServerClient(self._server.grpc_url)
        calls = [self._send(client, number, request) for number, request in enumerate(self._requests)]
        if given_up_after is not None and self._all_arrived() and self._answered() <= given_up_after - _FAR:
            for call in calls[given_up_after:]:
                call.cancel()
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._ended) >= len(calls), ANSWERED_WITHIN_S + 5.0):
                raise TimeoutError(f"of {len(calls)} requests {len(self._ended)} were answered")
        client.close()

    def _all_arrived(self) -> bool:
        """Waits until the backend has all of them; False where it answered too many meanwhile to tell."""
        until_s = time.monotonic() + _SEEN_WITHIN_S
        while time.monotonic() < until_s:
            answered = self._answered()
            counts = parse(self._server.metrics())
            here = (
                counts.total(f"isochrone_{what}", model=self._model) for what in ("waiting_requests", "running_batches")
            )
            if sum(here) + answered >= len(self._requests):
                return True
            time.sleep(_LOOK_S)
        return False

    def _answered(self) -> int:
        with self._changed:
            return len(self._ended)

    def _send(self, client: Any, number: int, request: SoakRequest) -> Any:
        def ended(result: Any, error: Any) -> None:
            right = error is None and request.right(result.as_numpy("y"))
            self._tally.ended(self._model, outcome_of(error) if error else ANSWERED if right else WRONG)
            with self._changed:
                self._ended.add(number)
                self._changed.notify_all()

        self._tally.sent(self._model)
        inputs = control.request(triton_grpc, request.inputs)
        return client.async_infer(self._model, inputs, ended, client_timeout=ANSWERED_WITHIN_S)
