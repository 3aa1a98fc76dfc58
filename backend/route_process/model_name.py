"""Facts of one request that its head gives away: model, version, rows, class, objective. Bodies are never read.

HTTP has the model in the path. gRPC has none in its headers: Envoy's filter grpc_field_extraction reads it from the
message and passes it on as metadata, or the client says it in a header, which spares Envoy that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from urllib.parse import unquote

from backend.errors import RequestError

MODEL_HEADER = "x-isochrone-model"
VERSION_HEADER = "x-isochrone-model-version"
SLO_HEADER = "x-isochrone-slo-ms"
PRIORITY_HEADER = "x-isochrone-priority"
HEADERS = (MODEL_HEADER, VERSION_HEADER, SLO_HEADER, PRIORITY_HEADER)
"""Headers that a client may set."""

SERVICE = "inference.GRPCInferenceService"
_INFERENCES = ("ModelInfer", "ModelStreamInfer")
_NAME, _VERSION, _SHAPE = ("model_name", "name"), ("model_version", "version"), "inputs.shape"
EXTRACTED = {
    **dict.fromkeys(_INFERENCES, (_NAME[0], _VERSION[0], _SHAPE)),
    **dict.fromkeys(("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"), (_NAME[1], _VERSION[1])),
}
"""Fields that Envoy is asked for, by gRPC's method."""

_GRPC_PATHS = frozenset(f"/{SERVICE}/{method}" for method in _INFERENCES)
_HTTP_PATH = re.compile(r"/v2/models/([^/?]+)(?:/versions/([^/?]+))?(?:/(infer|generate|generate_stream))?(?=[/?]|$)")
_PRIORITY_MAX = 1_000_000
_SLO_MS_MAX = 1e9
_ROWS_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """One request's head. model, version: "" where none is named. infers: it asks for inference.

    rows: of its batch, 1 where not known. priority: 1 is the highest. slo_ns: from now on; None: none.
    """

    over_grpc: bool
    model: str = ""
    version: str = ""
    infers: bool = False
    rows: int = 1
    priority: int = 1
    slo_ns: int | None = None


def read_head(headers: Mapping[str, str], extracted: Mapping[str, Sequence[str]]) -> Asked:
    """Read a request's head. Raises RequestError where a header of ours says nothing that can be used.

    headers: names in lower case; `:path` and `content-type` among them. extracted: what Envoy found in the message, by
    field.
    """
    path = headers.get(":path", "")
    over_grpc = is_grpc(headers)
    if over_grpc:
        model, version, rows = _of_message(headers, extracted)
        infers = path in _GRPC_PATHS
    else:
        model, version, infers = _of_path(path)
        rows = 1
    slo_ms = _number(headers, SLO_HEADER, _SLO_MS_MAX)
    priority = _number(headers, PRIORITY_HEADER, _PRIORITY_MAX)
    if priority is not None and (priority < 1 or priority != int(priority)):
        raise _bad(PRIORITY_HEADER, headers[PRIORITY_HEADER], "a whole number of 1 or more")
    slo_ns = None if slo_ms is None else round(slo_ms * 1e6)
    return Asked(over_grpc, model, version, infers, rows, 1 if priority is None else int(priority), slo_ns)


def is_grpc(headers: Mapping[str, str]) -> bool:
    """True for a request of gRPC."""
    return headers.get("content-type", "").startswith("application/grpc")


def _of_path(path: str) -> tuple[str, str, bool]:
    found = _HTTP_PATH.match(path)
    if found is None:
        return "", "", False
    return unquote(found[1]), found[2] or "", found[3] is not None


def _of_message(headers: Mapping[str, str], extracted: Mapping[str, Sequence[str]]) -> tuple[str, str, int]:
    if MODEL_HEADER in headers:
        return headers[MODEL_HEADER], headers.get(VERSION_HEADER, ""), 1
    return _first(extracted, _NAME), _first(extracted, _VERSION), _rows(extracted.get(_SHAPE, ()))


def _first(extracted: Mapping[str, Sequence[str]], fields: Iterable[str]) -> str:
    return next((extracted[field][0] for field in fields if extracted.get(field)), "")


def _rows(shape: Sequence[str]) -> int:
    """First dimension of the first input; whoever knows the model knows whether it is that of a batch."""
    try:
        rows = int(shape[0]) if shape else 1
    except ValueError:
        return 1
    return min(max(rows, 1), _ROWS_MAX)


def _number(headers: Mapping[str, str], name: str, most: float) -> float | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (isfinite(number) and 0.0 < number <= most):
        raise _bad(name, text, f"a number above 0 and up to {most:g}")
    return number


def _bad(name: str, text: str, allowed: str) -> RequestError:
    return RequestError(f"header '{name}' is {text[:100]!r}, but must be {allowed}")
