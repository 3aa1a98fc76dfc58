"""Ways of a request to the server and back, by plain tritonclient: gRPC, HTTP, a gRPC stream, shared memory."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, shared_memory

from backend.server.embedded import EmbeddedServer
from benchmarks.soak.models import SHARED_SHAPE, Array, SoakRequest
from tests.server import control

ANSWERED_WITHIN_S = 600.0
"""The client gives a request up then, which counts as a request that hung."""
_RELEASED_WITHIN_S = 5.0


class Transport(Protocol):
    """A client's connection."""

    def ask(self, model: str, request: SoakRequest) -> Array:
        """Returns the answer `y`. Raises InferenceServerException."""

    def close(self) -> None:
        """Disconnects."""


Connect = Callable[[EmbeddedServer], Transport]


class Grpc:
    """One call per request."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._client = triton_grpc.InferenceServerClient(server.grpc_url)

    def ask(self, model: str, request: SoakRequest) -> Array:
        inputs, parameters = control.request(triton_grpc, request.inputs), dict(request.parameters) or None
        result = self._client.infer(model, inputs, parameters=parameters, client_timeout=ANSWERED_WITHIN_S)
        return _answer(result)

    def close(self) -> None:
        self._client.close()


class Http:
    """One POST per request."""

    def __init__(self, server: EmbeddedServer) -> None:
        limits = {"connection_timeout": ANSWERED_WITHIN_S, "network_timeout": ANSWERED_WITHIN_S}
        self._client = triton_http.InferenceServerClient(server.http_url, **limits)

    def ask(self, model: str, request: SoakRequest) -> Array:
        inputs, parameters = control.request(triton_http, request.inputs), dict(request.parameters) or None
        return _answer(self._client.infer(model, inputs, parameters=parameters))

    def close(self) -> None:
        self._client.close()


class GrpcStream:
    """All requests on one stream."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._client = triton_grpc.InferenceServerClient(server.grpc_url)
        self._client.start_stream(lambda result, error: self._answers.put((result, error)))

    def ask(self, model: str, request: SoakRequest) -> Array:
        inputs, parameters = control.request(triton_grpc, request.inputs), dict(request.parameters) or None
        self._client.async_stream_infer(model, inputs, parameters=parameters)
        try:
            result, error = self._answers.get(timeout=ANSWERED_WITHIN_S)
        except queue.Empty:
            raise InferenceServerException(f"no answer within {ANSWERED_WITHIN_S:g} s") from None
        if error is not None:
            raise error
        return _answer(result)

    def close(self) -> None:
        self._client.stop_stream()
        self._client.close()


class SharedMemory:
    """Tensors of `SHARED_SHAPE` in shared memory of the client's, in and out."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._client = triton_grpc.InferenceServerClient(server.grpc_url)
        self._bytes = 4 * int(np.prod(SHARED_SHAPE))
        self._regions: dict[str, Any] = {}
        for way in ("in", "out"):
            name = f"soak_{os.getpid()}_{id(self)}_{way}"
            self._regions[name] = shared_memory.create_shared_memory_region(name, f"/{name}", self._bytes)
            self._client.register_system_shared_memory(name, f"/{name}", self._bytes)

    def ask(self, model: str, request: SoakRequest) -> Array:
        (name, array), (given, taken) = next(iter(request.inputs.items())), self._regions
        shared_memory.set_shared_memory_region(self._regions[given], [array])
        tensor = triton_grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_shared_memory(given, self._bytes)
        output = triton_grpc.InferRequestedOutput("y")
        output.set_shared_memory(taken, self._bytes)
        self._client.infer(model, [tensor], outputs=[output], client_timeout=ANSWERED_WITHIN_S)
        content: Array = shared_memory.get_contents_as_numpy(self._regions[taken], array.dtype, array.shape)
        return content.copy()

    def close(self) -> None:
        for name, handle in self._regions.items():
            self._unregister(name)
            shared_memory.destroy_shared_memory_region(handle)
        self._client.close()

    def _unregister(self, name: str) -> None:
        """Triton sends an answer first and lets go of its regions after, and refuses in between."""
        until_s = time.monotonic() + _RELEASED_WITHIN_S
        while time.monotonic() < until_s:
            with suppress(InferenceServerException):
                self._client.unregister_system_shared_memory(name)
                return
            time.sleep(0.01)


def _answer(result: Any) -> Array:
    answer: Array = result.as_numpy("y")
    return answer
