"""Parameters of a model's config.pbtxt, read once and strictly: an unknown key is an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backend.config.stock_config import PARAMETERS
from backend.errors import ConfigError, quoted

NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class Parameters:
    """Parameters that a user may set per model; the defaults are the documented ones.

    slo_ns: latency objective from arrival, None: best effort. priority: 1 is the highest class.
    """

    interference_aware: bool = True
    slo_ns: int | None = None
    priority: int = 1
    on_miss: str = "serve"
    engine: str = "auto"
    device_lanes: int | None = None
    engine_process: str = "auto"
    mps_percent: int | None = None
    max_queue_size: int = 4096


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _milliseconds(text: str) -> int:
    if not re.fullmatch(r"[-+0-9.eE]+", text) or not 1 / NS_PER_MS <= float(text) <= 1e9:  # Python reads 1_0 and ٣ too
        raise ValueError
    return round(float(text) * NS_PER_MS)


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return read


def _optional(read: Callable[[str], int]) -> Callable[[str], int | None]:
    return lambda text: None if text == "auto" else read(text)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return read


@dataclass(frozen=True)
class _Key:
    field: str
    read: Callable[[str], Any]
    allowed: str


KEYS: Mapping[str, _Key] = {
    "interference_aware": _Key("interference_aware", _boolean, '"true" or "false"'),
    "slo_ms": _Key("slo_ns", _milliseconds, "a number of milliseconds above 0, at most 1e9"),
    "priority": _Key("priority", _integer(1, 1000), "a whole number from 1 (the highest class) to 1000"),
    "on_miss": _Key("on_miss", _one_of("serve", "reject"), '"serve" or "reject"'),
    "engine": _Key(
        "engine",
        _one_of("auto", "onnxruntime", "tensorrt", "emulated"),
        '"auto", "onnxruntime", "tensorrt" or "emulated"',
    ),
    "device_lanes": _Key("device_lanes", _optional(_integer(1, 1024)), '"auto" or a whole number from 1 to 1024'),
    "engine_process": _Key("engine_process", _one_of("auto", "own", "shared"), '"auto", "own" or "shared"'),
    "mps_percent": _Key("mps_percent", _integer(1, 100), "a whole number from 1 to 100"),
    "max_queue_size": _Key("max_queue_size", _integer(1, 65536), "a whole number from 1 to 65536"),
}


def read_parameters(parameters: Mapping[str, Mapping[str, str]]) -> Parameters:
    """Read `parameters` of Triton's model configuration. Raises ConfigError naming key, value, what is allowed."""
    values: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in PARAMETERS:  # Triton's and its other backends': see `stock_config`
            continue
        key = KEYS.get(name)
        if key is None:
            raise ConfigError(f"unknown parameter '{quoted(name)}'; the parameters are {', '.join(KEYS)}")
        text = value.get("string_value", "")
        try:
            values[key.field] = key.read(text.strip())
        except ValueError:
            raise ConfigError(f"parameter '{name}' is \"{quoted(text)}\"; it must be {key.allowed}") from None
    return Parameters(**values)


def unused(asked: Parameters) -> list[str]:
    """Sentences for parameters that another one of the model leaves without effect."""
    if asked.on_miss == "reject" and not asked.interference_aware:
        return [
            "parameter 'on_miss' is \"reject\", which has no effect while 'interference_aware' is \"false\": "
            "nothing is rejected; leave one of them out"
        ]
    return []
