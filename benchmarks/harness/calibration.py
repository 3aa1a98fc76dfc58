"""Capacity of a machine, measured through a server in a closed loop."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from typing import Any

from tritonclient import grpc as triton

from backend.linux.cpu_topology import cores
from backend.load.generator import TIMEOUT_S, Payloads
from backend.load.interruption import Interruption, interruptible
from benchmarks.harness.errors import BenchmarkError

_RAMP_S = 1.0


def capacity_per_s(url: str, payloads: Payloads, in_flight_per_lane: int, seconds: float) -> float:
    """Requests a second, equal numbers of each model, with so many per lane always waiting or running.

    A lane per core. Raises BenchmarkError where none is answered.
    """
    per_model = max(2, math.ceil(in_flight_per_lane * len(cores()) / len(payloads)))

    def measure(interruption: Interruption) -> float:
        with triton.InferenceServerClient(url) as client:
            loop = RequestLoop(client, payloads, per_model * len(payloads))
            loop.start()
            try:
                interruption.sleep(_RAMP_S)
                before, started_s = loop.answers, time.monotonic()
                interruption.sleep(seconds)
                return (loop.answers - before) / (time.monotonic() - started_s)
            finally:
                loop.stop()

    found = interruptible(measure)
    if found <= 0.0:
        raise BenchmarkError("the server answered no request while its capacity was measured")
    return found


class RequestLoop:
    """Each answer sends the next request; the models take turns, so that a slow one does not shrink in the mix.

    parameters: of each request.
    """

    def __init__(
        self, client: Any, payloads: Payloads, in_flight: int, parameters: Mapping[str, int] | None = None
    ) -> None:
        self._client, self._payloads, self._in_flight = client, payloads, in_flight
        self._parameters = None if parameters is None else dict(parameters)
        self._models = tuple(payloads)
        self._sent = 0
        self._open = 0
        self._stopping = False
        self._changed = threading.Condition()
        self.answers = 0
        self.error: Exception | None = None
        """The first one, which ended one of those in flight."""

    def start(self) -> None:
        """Send the first requests."""
        for _ in range(self._in_flight):
            self._send()

    def stop(self) -> None:
        """Send none any more, and wait for what is out."""
        with self._changed:
            self._stopping = True
            self._changed.wait_for(lambda: self._open == 0, timeout=2 * TIMEOUT_S)

    def _send(self) -> None:
        with self._changed:
            model = self._models[self._sent % len(self._models)]
            self._sent += 1
            self._open += 1
        self._client.async_infer(
            model, self._payloads[model], self._answered, client_timeout=TIMEOUT_S, parameters=self._parameters
        )

    def _answered(self, result: Any, error: Exception | None) -> None:  # noqa: ARG002 - tritonclient's call
        with self._changed:
            self._open -= 1
            self.answers += error is None
            self.error = self.error or error
            ended = self._stopping or error is not None  # an error ends its loop: it must not spin
            self._changed.notify_all()
        if not ended:
            self._send()
