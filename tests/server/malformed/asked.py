"""One inference request apart from how it travels, and the answer that it must get; knows nothing of what breaks it.

The reading is strict: whatever departs from the protocol, or from this backend's reference, must be refused.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper
from tritonclient.grpc import service_pb2

from tests.server.harness import graph, identity, mlp, mlp_answer

Arrays = dict[str, npt.NDArray[Any]]

MLP = mlp(width=4)
PAIR = graph(
    [helper.make_node("Add", ["a", "b"], ["total"]), helper.make_node("Sub", ["a", "b"], ["less"])],
    {"a": (np.int64, ["batch", "n"]), "b": (np.int64, ["batch", "n"])},
    {"total": (np.int64, ["batch", "n"]), "less": (np.int64, ["batch", "n"])},
)
FREE = graph([helper.make_node("Neg", ["x"], ["y"])], {"x": (np.float32, ["n", "m"])}, {"y": (np.float32, ["n", "m"])})
ROWS_MAX = 8
CONFIG = f'backend: "isochrone"\nmax_batch_size: {ROWS_MAX}\n'
CONFIGS = {
    "target": (MLP, CONFIG),
    "text": (identity(object), CONFIG),
    "pair": (PAIR, CONFIG),
    "free": (FREE, 'backend: "isochrone"\nmax_batch_size: 0\n'),
}
"""Models that the requests go to: ONNX model and config.pbtxt."""
INPUTS: Mapping[str, Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "target": {"x": ("FP32", (-1, 4))},
    "text": {"x": ("BYTES", (-1, 4))},
    "pair": {"a": ("INT64", (-1, -1)), "b": ("INT64", (-1, -1))},
    "free": {"x": ("FP32", (-1, -1))},
}
OUTPUTS = {"target": ("y",), "text": ("y",), "pair": ("total", "less"), "free": ("y",)}
SIZES = {"FP32": 4, "INT64": 8}
DTYPES = {"FP32": np.float32, "INT64": np.int64}
OURS = ("slo_ms", "deadline_ns", "priority_class")
"""Request parameters of this backend. What Triton makes of others, and of their types, is its own affair."""


@dataclass
class Tensor:
    """An input as it travels in binary. parameters: of shared memory, for one."""

    name: str
    datatype: str
    shape: list[int]
    data: bytes
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Asked:
    """A request."""

    model: str
    inputs: list[Tensor]
    outputs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    id: str = ""


@dataclass(frozen=True)
class Expected:
    """answer: None where the request must be refused. sure: whether one that has an answer must get it."""

    answer: Arrays | None
    sure: bool = True


REFUSED = Expected(None)


def as_bytes(array: npt.NDArray[Any]) -> bytes:
    """An array as Triton's binary data."""
    if array.dtype != object:
        return array.tobytes()
    return b"".join(struct.pack("<I", len(item)) + item for item in array.ravel().tolist())


def expected(asked: Asked) -> Expected:
    """What must become of a request."""
    wanted = INPUTS.get(asked.model)
    names = [tensor.name for tensor in asked.inputs]
    if wanted is None or sorted(names) != sorted(wanted):
        return Expected(None, sure="\0" not in asked.model)  # C reads up to there
    if asked.version not in ("", "1") and not _means_1(asked.version):
        return REFUSED
    arrays = {tensor.name: _read(tensor, *wanted[tensor.name]) for tensor in asked.inputs}
    if any(array is None for array in arrays.values()) or not _usable(asked.parameters):
        # Triton counts rows with 32 bits, and an input that says 0 has as many as the others: see limits.md.
        return Expected(
            None, sure=not any(tensor.shape and _is_none_or_huge(tensor.shape[0]) for tensor in asked.inputs)
        )
    answer = _answer(asked.model, {name: array for name, array in arrays.items() if array is not None})
    if answer is None or any(name not in answer for name, _ in asked.outputs):
        return Expected(None, sure=not any("\0" in name for name, _ in asked.outputs))
    if any(
        "shared_memory_region" in each for each in (*(p for _, p in asked.outputs), *map(_parameters, asked.inputs))
    ):
        return REFUSED
    plain = not any(parameters for _, parameters in asked.outputs) and not any(map(_parameters, asked.inputs))
    named = {name for name, _ in asked.outputs} or set(answer)
    usual = all(name in OURS and not _is_beyond_int64(value) for name, value in asked.parameters.items())
    sure = plain and usual and asked.version in ("", "1") and len(named) == (len(asked.outputs) or len(answer))
    return Expected({name: answer[name] for name in named}, sure)


def _is_none_or_huge(rows: int) -> bool:
    return rows == 0 or abs(rows) >= 1 << 32


def _is_beyond_int64(value: Any) -> bool:
    return isinstance(value, int) and value >= 1 << 63


def _means_1(version: str) -> bool:
    """As C reads a number, and so Triton: what is behind it is not looked at by all of its releases."""
    return re.match(r"\s*\+?0*1(?![0-9])", version) is not None


def _parameters(tensor: Tensor) -> dict[str, Any]:
    return tensor.parameters


def _read(tensor: Tensor, datatype: str, dims: tuple[int, ...]) -> npt.NDArray[Any] | None:
    shape = tuple(tensor.shape)
    if tensor.datatype != datatype or len(shape) != len(dims) or any(d < 1 for d in shape):
        return None
    if any(d not in (-1, s) for d, s in zip(dims, shape, strict=True)):
        return None
    count = math.prod(shape)
    if datatype == "BYTES":
        items = _items(tensor.data)
        if items is None or len(items) != count:
            return None
        array = np.empty(count, object)
        array[:] = items
        return array.reshape(shape)
    if len(tensor.data) != count * SIZES[datatype]:
        return None
    return np.frombuffer(tensor.data, DTYPES[datatype]).reshape(shape)


def _items(data: bytes) -> list[bytes] | None:
    """Elements of a BYTES tensor, each behind its length; None where they are not UTF-8 text or do not fill it."""
    found = []
    while data:
        if len(data) < 4 or len(data) - 4 < (size := struct.unpack("<I", data[:4])[0]):
            return None
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    try:
        for item in found:
            item.decode()
    except UnicodeDecodeError:
        return None
    return found


def _answer(model: str, arrays: Arrays) -> Arrays | None:
    if model != "free" and (
        len({a.shape[0] for a in arrays.values()}) != 1 or next(iter(arrays.values())).shape[0] > ROWS_MAX
    ):
        return None
    if model == "target":
        with np.errstate(all="ignore"):
            return {"y": mlp_answer(MLP, arrays["x"])}
    if model == "text":
        return {"y": arrays["x"]}
    if model == "free":
        return {"y": -arrays["x"]}
    a, b = arrays["a"], arrays["b"]
    if a.shape != b.shape and 1 not in (a.shape[1], b.shape[1]):
        return None
    with np.errstate(over="ignore"):
        return {"total": a + b, "less": a - b}


def _usable(parameters: Mapping[str, Any]) -> bool:
    """True where docs/reference/request-parameters.md allows what is there."""
    if "slo_ms" in parameters and "deadline_ns" in parameters:
        return False
    whole = all(_is_whole(parameters[key]) for key in ("deadline_ns", "priority_class") if key in parameters)
    return whole and ("slo_ms" not in parameters or _is_milliseconds(parameters["slo_ms"]))


def _is_whole(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch("[0-9]{1,20}", value.strip()) is not None and int(value) >= 1
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_milliseconds(value: Any) -> bool:
    if isinstance(value, str):
        value = float(value) if re.fullmatch(r"\s*[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*", value) else -1.0
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1e9


# To the wire


def to_grpc(asked: Asked) -> Any:
    """As a message of Triton's gRPC service; what no field holds is left out."""
    message = service_pb2.ModelInferRequest(
        model_name=asked.model,
        model_version=asked.version,
        id=asked.id,
        raw_input_contents=[t.data for t in asked.inputs],
    )
    _set(message.parameters, asked.parameters)
    for tensor in asked.inputs:
        one = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        _set(one.parameters, tensor.parameters)
    for name, parameters in asked.outputs:
        _set(message.outputs.add(name=name).parameters, parameters)
    return message


def _set(held: Any, parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        one = held[name]
        if isinstance(value, bool):
            one.bool_param = value
        elif isinstance(value, int):
            if value < 2**63:
                one.int64_param = value
            else:
                one.uint64_param = value
        elif isinstance(value, float):
            one.double_param = value
        elif isinstance(value, str):
            one.string_param = value


def to_http(asked: Asked, binary: bool) -> tuple[bytes, bytes]:
    """As the JSON of the HTTP protocol and the binary data behind it; not binary: with data in the JSON.

    Raises ValueError where the data cannot be put into JSON.
    """
    inputs = []
    for tensor in asked.inputs:
        one: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if binary:
            one["parameters"] = {"binary_data_size": len(tensor.data), **tensor.parameters}
        else:
            one["data"] = _json_data(tensor)
            if tensor.parameters:
                one["parameters"] = tensor.parameters
        inputs.append(one)
    document: dict[str, Any] = {"inputs": inputs}
    if asked.id:
        document["id"] = asked.id
    if asked.parameters:
        document["parameters"] = asked.parameters
    if asked.outputs:
        document["outputs"] = [{"name": n, **({"parameters": p} if p else {})} for n, p in asked.outputs]
    return json.dumps(document).encode("utf-8", "surrogatepass"), b"".join(
        t.data for t in asked.inputs
    ) if binary else b""


def _json_data(tensor: Tensor) -> list[Any]:
    if tensor.datatype == "BYTES":
        items = _items(tensor.data)
        if items is None:
            raise ValueError(tensor.name)
        return [item.decode() for item in items]
    if tensor.datatype not in DTYPES or len(tensor.data) % SIZES[tensor.datatype]:
        raise ValueError(tensor.name)
    values: list[Any] = np.frombuffer(tensor.data, DTYPES[tensor.datatype]).tolist()
    if not all(math.isfinite(value) for value in values):
        raise ValueError(tensor.name)
    return values
