"""A sample of the cases that has some of every kind, the same each time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import onnx
from onnx import TensorProto, helper

from backend.tensors import Datatype
from tests.onnx_nodes.cases import Case, is_random, operators

_LOOPS = {"If", "Loop", "Scan"}
_QUANTISED = {"ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QuantizeLinear"}
_TRITONS = {
    TensorProto.STRING if datatype.numpy.hasobject else helper.np_dtype_to_tensor_dtype(datatype.numpy)
    for datatype in Datatype
}


def sample(cases: Sequence[Case], size: int, of_each_kind: int) -> list[Case]:
    """So many of each special kind, evenly spread over their names and so over operators; the rest are plain ones."""
    kinds: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        kinds[kind(case.model())].append(case)
    plain = kinds.pop("plain")
    special = [case for members in kinds.values() for case in _spread(members, of_each_kind)]
    return [*special, *_spread(plain, size - len(special))]


def kind(model: onnx.ModelProto) -> str:
    """The first that fits of what can go wrong in a way of its own."""
    types = [info.type for info in (*model.graph.input, *model.graph.output)]
    shapes = [list(_shape(type)) for type in types]
    elements = {type.tensor_type.elem_type for type in types if type.HasField("tensor_type")}
    found = {
        "sequence": not all(type.HasField("tensor_type") for type in types),
        "foreign type": bool(elements - _TRITONS),
        "random": is_random(model),
        "control flow": bool(operators(model) & _LOOPS),
        "quantised": bool(operators(model) & _QUANTISED),
        "text": TensorProto.STRING in elements,
        "empty": any(0 in shape for shape in shapes),
        "dynamic": any(None in shape for shape in shapes),
        "no inputs": not model.graph.input,
        "scalar": [] in shapes,
    }
    return next((name for name, fits in found.items() if fits), "plain")


def _shape(of: onnx.TypeProto) -> Iterator[int | None]:
    """None for what is not known before a request."""
    if not of.tensor_type.HasField("shape"):
        yield None
    for dim in of.tensor_type.shape.dim:
        yield dim.dim_value if dim.HasField("dim_value") else None


def _spread(members: list[Case], count: int) -> list[Case]:
    count = min(count, len(members))
    return [members[number * len(members) // count] for number in range(count)]
