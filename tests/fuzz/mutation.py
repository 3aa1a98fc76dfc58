"""Mutation of bytes, and of the values in JSON, JSON Lines and MessagePack; the same for the same random numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import msgspec

FORMATS = ("json", "json lines", "msgpack", "text")
BYTES_MAX = 1 << 16
_DEEP = 3000
_TOKENS = (
    *(b"\0", b"\n", b"\xff\xfe", b'"', b"-1", b"NaN", b"1e999", b"9" * 400, b"{}", b"\xc1"),
    *(b"[" * _DEEP, b"\x91" * _DEEP),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, "", "a\nb", "../../etc/passwd", "\0", "ü" * 300, [], {}, 0, 1, -1, 2, 0.5, -0.0),
    *(1e308, 5e-324, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 10**15, 1e18),
)
_NO_MSGPACK: tuple[Any, ...] = (float("nan"), float("inf"), 10**400, "\ud800")
"""Beyond what each format holds: JSON as Python writes it has all of these."""


def mutated(data: bytes, random: Random, kind: str, other: bytes = b"") -> bytes:
    """One to four mutations. other: of the same format, to take parts from."""
    for _ in range(random.choice((1, 1, 1, 2, 2, 4))):
        data = _mutated_once(data, random, kind, other)
    return data[:BYTES_MAX]


def _mutated_once(data: bytes, random: Random, kind: str, other: bytes) -> bytes:
    if kind == "text" or random.random() < 0.25:
        return _bytes(data, random, other)
    if kind == "json lines":
        lines = data.split(b"\n")
        at = random.randrange(len(lines))
        if random.random() < 0.1:
            lines.insert(at, random.choice(lines))
        else:
            lines[at] = _values(lines[at], random, "json")
        return b"\n".join(lines)
    return _values(data, random, kind)


def _bytes(data: bytes, random: Random, other: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    to = min(len(data), at + random.choice((1, 2, 4, 16, 200)))
    return random.choice(
        (
            lambda: data[:at] + data[to:],
            lambda: data[:at] + random.randbytes(to - at) + data[to:],
            lambda: data[:at] + random.choice(_TOKENS) + data[at:],
            lambda: data[:at] + random.choice(_TOKENS) + data[to:],
            lambda: data[:at] + data[at:to] * random.choice((2, 3, 50)) + data[to:],
            lambda: data[:at] + other[at:],
            lambda: data[:at],
        )
    )()


def _values(data: bytes, random: Random, kind: str) -> bytes:
    decode: Callable[[bytes], Any] = json.loads if kind == "json" else msgspec.msgpack.decode
    try:
        root = decode(data)
    except (ValueError, RecursionError):
        return _bytes(data, random, b"")
    places: list[tuple[Any, Any]] = []
    _collect(root, places)
    if not places:
        return _bytes(data, random, b"")
    holder, key = random.choice(places)
    _change(holder, key, random, _VALUES if kind == "msgpack" else _VALUES + _NO_MSGPACK)
    try:
        return json.dumps(root, separators=(",", ":")).encode() if kind == "json" else msgspec.msgpack.encode(root)
    except (ValueError, OverflowError, RecursionError):
        return data


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else ()
    )
    for key, below in pairs:
        places.append((value, key))
        _collect(below, places)


def _change(holder: Any, key: Any, random: Random, values: tuple[Any, ...]) -> None:
    found = holder[key]
    roll = random.random()
    if roll < 0.1:
        del holder[key]
    elif roll < 0.2 and isinstance(holder, list):
        holder.insert(key, found)
    elif roll < 0.25:
        holder[key] = [found]
    elif roll < 0.5 and isinstance(found, int | float) and not isinstance(found, bool):
        with suppress(OverflowError):
            holder[key] = random.choice((found + 1, found - 1, -found, found * 1000, found // 7, float(found)))
    elif roll < 0.6 and isinstance(holder, list) and len(holder) > 1:
        holder[key] = random.choice(holder)
    else:
        holder[key] = random.choice(values)
