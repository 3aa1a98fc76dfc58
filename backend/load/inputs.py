"""Requests for models that only a server knows, made from what it says of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from backend.errors import ConfigError, ServerError
from backend.load.generator import TIMEOUT_S, Payloads
from backend.load.interruption import Interruption, interruptible

_WARM_UP_CALLS = 3
_CALLS_S = 3.0


def server_payloads(url: str, models: Iterable[str], seed: int = 0) -> Payloads:
    """A request of one row for each model: random numbers, integers all 1, dynamic dimensions all 1.

    Raises ServerError where no server answers, ConfigError where it has not got a model.
    """
    random = np.random.default_rng(seed)
    with triton.InferenceServerClient(url) as client:
        _expect_live(client, url)
        return {model: _payload(client, url, model, random) for model in models}


def solo_ms(url: str, payloads: Payloads, calls: int = 15) -> dict[str, float]:
    """Median latency of each model's request, one at a time, of so many calls or those of a few seconds.

    Raises ConfigError where a model does not answer.
    """

    def measure(interruption: Interruption) -> dict[str, float]:
        with triton.InferenceServerClient(url) as client:
            asked = ((m, inputs) for m, inputs in payloads.items() if not interruption.asked)
            return {model: _solo_ms(client, model, inputs, calls) for model, inputs in asked}

    return interruptible(measure)


def is_live(url: str) -> bool:
    with triton.InferenceServerClient(url) as client:
        try:
            return bool(client.is_server_live(client_timeout=TIMEOUT_S))
        except InferenceServerException:
            return False


def _expect_live(client: Any, url: str) -> None:
    try:
        client.is_server_live(client_timeout=TIMEOUT_S)
    except InferenceServerException as error:
        raise ServerError(f"no server answers gRPC at {url}: {error.message()}") from None


def _payload(client: Any, url: str, model: str, random: np.random.Generator) -> list[Any]:
    try:
        stated = client.get_model_metadata(model, client_timeout=TIMEOUT_S).inputs
    except InferenceServerException as error:
        raise ConfigError(f"the server at {url} does not serve model '{model}': {error.message()}") from None
    inputs = []
    for tensor in stated:
        shape = [1 if size < 0 else int(size) for size in tensor.shape]
        found = triton.InferInput(tensor.name, shape, tensor.datatype)
        found.set_data_from_numpy(_array(tensor.datatype, shape, random))
        inputs.append(found)
    return inputs


def _array(datatype: str, shape: list[int], random: np.random.Generator) -> NDArray[Any]:
    if datatype == "BYTES":
        return np.full(shape, b"text", dtype=object)
    dtype = np.dtype(triton_to_np_dtype(datatype))
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return np.ones(shape, dtype)


def _solo_ms(client: Any, model: str, inputs: Any, calls: int) -> float:
    latencies_ms: list[float] = []
    end_s = time.monotonic() + _CALLS_S
    for call in range(_WARM_UP_CALLS + calls):
        started_s = time.monotonic()
        try:
            client.infer(model, inputs, client_timeout=TIMEOUT_S)
        except InferenceServerException as error:
            raise ConfigError(f"model '{model}' does not answer a request of this load: {error.message()}") from None
        ended_s = time.monotonic()
        if call >= _WARM_UP_CALLS:
            latencies_ms.append((ended_s - started_s) * 1e3)
            if ended_s > end_s:
                break
    return statistics.median(latencies_ms)
