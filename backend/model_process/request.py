"""Inference requests between arrival and answer: their arrays, deadlines and senders.

The request parameters of the public contract are read here; nothing here talks to Triton.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backend.config.parameters import NS_PER_MS, Parameters
from backend.errors import RequestError
from backend.tensors import Array, TensorSpec

_NS_PER_US = 1_000
_SHOWN_CHARS_MAX = 80
_LOWEST_CLASS = 2**63 - 1
_NEVER_NS = 2**62
"""A century and more: later deadlines, as Triton's 64 bits of microseconds allow, do not fit a message."""


@dataclass(eq=False, slots=True)
class Pending:
    """A request between `execute` and its answer. Times are CLOCK_MONOTONIC nanoseconds.

    inputs: arrays [rows, …] in the model's types. sender: the way back to the client, opaque here.
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
    """Deadline and class of a request."""

    deadline_ns: int | None
    priority: int


@dataclass(frozen=True)
class Arrival:
    """Instant of arrival on both clocks: deadlines are given in Unix time and kept in monotonic time."""

    monotonic_ns: int
    unix_ns: int


def read_due(given: Mapping[str, object], timeout_us: int, defaults: Parameters, arrival: Arrival) -> Due:
    """Read request parameters, else Triton's `timeout`, else the model's `slo_ms`. Raises RequestError."""
    priority = defaults.priority
    if "priority_class" in given:
        allowed = "a whole number from 1, the highest class"
        priority = min(_whole("priority_class", given["priority_class"], allowed), _LOWEST_CLASS)
    deadline_ns = _deadline_ns(given, timeout_us, defaults, arrival)
    return Due(None if deadline_ns is None else min(deadline_ns, _NEVER_NS), priority)


def _deadline_ns(given: Mapping[str, object], timeout_us: int, defaults: Parameters, arrival: Arrival) -> int | None:
    if "deadline_ns" in given:
        if "slo_ms" in given:
            raise RequestError("slo_ms and deadline_ns are both given; give one of them")
        deadline = _whole("deadline_ns", given["deadline_ns"], "a Unix time in whole nanoseconds")
        return arrival.monotonic_ns + deadline - arrival.unix_ns
    if "slo_ms" in given:
        return arrival.monotonic_ns + round(_milliseconds("slo_ms", given["slo_ms"]) * NS_PER_MS)
    if timeout_us > 0:
        return arrival.monotonic_ns + timeout_us * _NS_PER_US
    return None if defaults.slo_ns is None else arrival.monotonic_ns + defaults.slo_ns


def _whole(key: str, value: object, allowed: str) -> int:
    """A whole number above 0. A string stands for the number that it spells: not every client has others to give."""
    number = value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value.strip(), re.ASCII):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise RequestError(f"{key} is {_shown(value)}; it must be {allowed}")
    return number


def _milliseconds(key: str, value: object) -> float:
    number = value
    if isinstance(value, str) and re.fullmatch(r"[-+0-9.eE]+", value.strip(), re.ASCII):  # Python reads 1_0 as 10
        with suppress(ValueError):
            number = float(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number <= 1e9:
        raise RequestError(f"{key} is {_shown(value)}; it must be a number of milliseconds above 0, at most 1e9")
    return number


def _shown(value: object) -> str:
    """A value as a sentence quotes it: a client may have sent megabytes."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}…"


def read_tensor(spec: TensorSpec, array: Array, batching: bool) -> Array:
    """A copy of an input in the model's type and rank: Triton's buffer dies when `execute` returns.

    Raises RequestError where type or shape cannot be the model's, MemoryError where there is no room for the copy.
    """
    name, text = spec.name, spec.datatype.numpy.hasobject
    if not text and array.dtype != spec.datatype.numpy:
        raise RequestError(f"input '{name}' is {array.dtype}; the model takes {spec.datatype.numpy}")
    try:
        array = _decoded(name, array) if text else array.copy()
    except MemoryError:
        size = "" if text else f" of {array.nbytes / 1e6:.1f} MB"
        raise MemoryError(f"input '{name}'{size} cannot be copied: the model's process has no memory left") from None
    lead = 1 if batching else 0
    if batching and array.ndim == len(spec.shape):  # such a request comes without a batch dimension at all
        raise RequestError(f"input '{name}' has 0 rows, as Triton counts them modulo 2^32; it must have 1 or more")
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
