"""One inference request while it is ours: its arrays, when it is due, how to answer it.

The request parameters of the public contract are read here; nothing here talks to Triton.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.engines.protocol import Array, TensorSpec
from backend.errors import RequestError
from backend.parameters import NS_PER_MS, Parameters

_NS_PER_US = 1_000
_NEVER_NS = 2**62
"""A century and more: later deadlines, as Triton's 64 bits of microseconds allow, do not fit a message."""


@dataclass(eq=False, slots=True)
class Pending:
    """A request between `execute` and its answer. Times are CLOCK_MONOTONIC nanoseconds.

    inputs: arrays [rows, …] in the model's types. sender: Triton's response sender, opaque here.
    group: requests of one group have equal input names and shapes but for the rows.
    """

    id: int
    sender: Any
    inputs: dict[str, Array]
    wanted: tuple[str, ...]
    rows: int
    group: int
    arrival_ns: int
    deadline_ns: int | None
    priority: int


@dataclass(frozen=True)
class Due:
    """When a request must be answered, and its class."""

    deadline_ns: int | None
    priority: int


@dataclass(frozen=True)
class Arrival:
    """The instant of arrival on both clocks: deadlines are given in Unix time and kept in monotonic time."""

    monotonic_ns: int
    unix_ns: int


def read_due(given: Mapping[str, object], timeout_us: int, defaults: Parameters, arrival: Arrival) -> Due:
    """From request parameters, else Triton's `timeout`, else the model's `slo_ms`. Raises RequestError."""
    priority = given.get("priority_class", defaults.priority)
    if isinstance(priority, bool) or not isinstance(priority, int) or priority < 1:
        raise RequestError(f"priority_class is {priority!r}; it must be a whole number from 1, the highest class")
    deadline_ns = _deadline_ns(given, timeout_us, defaults, arrival)
    return Due(None if deadline_ns is None else min(deadline_ns, _NEVER_NS), priority)


def _deadline_ns(given: Mapping[str, object], timeout_us: int, defaults: Parameters, arrival: Arrival) -> int | None:
    if "deadline_ns" in given:
        if "slo_ms" in given:
            raise RequestError("slo_ms and deadline_ns are both given; give one of them")
        deadline = given["deadline_ns"]
        if isinstance(deadline, bool) or not isinstance(deadline, int) or deadline <= 0:
            raise RequestError(f"deadline_ns is {deadline!r}; it must be a Unix time in whole nanoseconds")
        return arrival.monotonic_ns + deadline - arrival.unix_ns
    if "slo_ms" in given:
        slo_ms = given["slo_ms"]
        if isinstance(slo_ms, bool) or not isinstance(slo_ms, int | float) or not _usable(slo_ms):
            raise RequestError(f"slo_ms is {slo_ms!r}; it must be a number of milliseconds above 0, at most 1e9")
        return arrival.monotonic_ns + round(slo_ms * NS_PER_MS)
    if timeout_us > 0:
        return arrival.monotonic_ns + timeout_us * _NS_PER_US
    return None if defaults.slo_ns is None else arrival.monotonic_ns + defaults.slo_ns


def _usable(slo_ms: float) -> bool:
    return math.isfinite(slo_ms) and 0 < slo_ms <= 1e9


def read_tensor(spec: TensorSpec, array: Array, batching: bool) -> Array:
    """A copy of an input in the model's type and rank: Triton's buffer dies when `execute` returns.

    Raises RequestError where the shape cannot be the model's.
    """
    name = spec.name
    if spec.datatype.numpy.hasobject:
        array = _decoded(name, array)
    elif array.dtype != spec.datatype.numpy:
        raise RequestError(f"input '{name}' is {array.dtype}; the model takes {spec.datatype.numpy}")
    else:
        array = array.copy()
    lead = 1 if batching else 0
    own = array.shape[lead:]
    if not spec.shape and own == (1,):  # a scalar per request travels as one element
        return array.reshape(array.shape[:lead])
    if len(own) != len(spec.shape) or any(b not in (-1, a) for a, b in zip(own, spec.shape, strict=True)):
        raise RequestError(f"input '{name}' has shape {list(own)} per request; the model takes {list(spec.shape)}")
    return array


def _decoded(name: str, array: Array) -> Array:
    """Strings of ONNX are UTF-8 text; Triton's are bytes."""
    try:
        flat = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise RequestError(f"input '{name}' holds bytes that are not UTF-8 text: {error.reason}") from None
    decoded = array.copy()
    decoded.ravel()[:] = flat
    return decoded
