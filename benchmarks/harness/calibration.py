"""What a machine can do, measured through the server in seconds: latency without company, and throughput at most."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from typing import Any

from tritonclient import grpc as triton

from backend.load.generator import TIMEOUT_S, Payloads
from backend.load.interruption import Interruption, interruptible

_WARM_UP_CALLS = 5


def solo_latency_ms(url: str, payloads: Payloads, *, calls: int = 40, seconds_max: float = 3.0) -> dict[str, float]:
    """Median latency of one request at a time, per model, its client's part included."""

    def measure(interruption: Interruption) -> dict[str, float]:
        with triton.InferenceServerClient(url) as client:
            return {
                model: _median_ms(client, model, payloads[model], calls, seconds_max)
                for model in payloads
                if not interruption.asked
            }

    return interruptible(measure)


def _median_ms(client: Any, model: str, inputs: Sequence[Any], calls: int, seconds_max: float) -> float:
    for _ in range(_WARM_UP_CALLS):
        client.infer(model, inputs, client_timeout=TIMEOUT_S)
    end_s = time.monotonic() + seconds_max
    latencies_ms: list[float] = []
    while len(latencies_ms) < calls and (not latencies_ms or time.monotonic() < end_s):
        started_s = time.monotonic()
        client.infer(model, inputs, client_timeout=TIMEOUT_S)
        latencies_ms.append((time.monotonic() - started_s) * 1e3)
    return statistics.median(latencies_ms)


def capacity_per_s(url: str, payloads: Payloads, *, per_model: int, seconds: float, ramp_s: float = 1.0) -> float:
    """Requests a second, equal numbers of each model, with `per_model` of each always waiting or running."""

    def measure(interruption: Interruption) -> float:
        with triton.InferenceServerClient(url) as client:
            loop = _ClosedLoop(client, payloads, per_model * len(payloads))
            loop.start()
            try:
                interruption.sleep(ramp_s)
                before, started_s = loop.answers, time.monotonic()
                interruption.sleep(seconds)
                return (loop.answers - before) / (time.monotonic() - started_s)
            finally:
                loop.stop()

    return interruptible(measure)


class _ClosedLoop:
    """Each answer sends the next request; the models take turns, so that a slow one does not shrink in the mix."""

    def __init__(self, client: Any, payloads: Payloads, in_flight: int) -> None:
        self._client, self._payloads, self._in_flight = client, payloads, in_flight
        self._models = tuple(payloads)
        self._sent = 0
        self._open = 0
        self._stopping = False
        self._changed = threading.Condition()
        self.answers = 0

    def start(self) -> None:
        for _ in range(self._in_flight):
            self._send()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.wait_for(lambda: self._open == 0, timeout=2 * TIMEOUT_S)

    def _send(self) -> None:
        with self._changed:
            model = self._models[self._sent % len(self._models)]
            self._sent += 1
            self._open += 1
        self._client.async_infer(model, self._payloads[model], self._answered, client_timeout=TIMEOUT_S)

    def _answered(self, result: Any, error: Exception | None) -> None:  # noqa: ARG002 - tritonclient's call
        with self._changed:
            self._open -= 1
            self.answers += error is None
            ended = self._stopping or error is not None  # an error ends its loop: it must not spin
            self._changed.notify_all()
        if not ended:
            self._send()
