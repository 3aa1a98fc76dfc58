"""Counts the work of an ONNX graph from its shapes: `python -m profiler.graph PATH SIZE…`.

The weights' values are dropped as the file is read.

Bodies of If, Loop and Scan are not counted, nor are operators whose shapes onnx cannot infer; such a graph's work
is marked incomplete.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

import msgspec
import onnx
import onnx.inliner

from profiler.child import end_with_parent
from profiler.kernel_count import VIEWS, kernel_count
from profiler.work import GraphWork

_KEEP_ELEMENTS_MAX = 1024
"""Larger constants lose their values; smaller ones may be shapes, axes or scales that inference reads."""

_COPIES = frozenset({"Cast", "Concat", "DepthToSpace", "Expand", "Pad", "Slice", "SpaceToDepth", "Split", "Tile"})
_LOOKUPS = frozenset({"Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Transpose"})
_FILLS = frozenset({"Constant", "ConstantOfShape", "OneHot", "Range", "Shape", "Size"})
_MOVES = VIEWS | _COPIES | _LOOKUPS | _FILLS
"""Operators that compute nothing."""

_VALUE_FIELDS = ("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


class UnknownShapeError(Exception):
    """A tensor's shape is not known; never leaves this module."""


class Tensors:
    """Shapes and element sizes by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._item_bytes: dict[str, int] = {}
        self.weights: set[str] = set()
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
            tensor = value.type.tensor_type
            self._item_bytes[value.name] = _item_bytes(tensor.elem_type)
            if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
                self._shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
        for name, constant in _constants(model.graph):
            self._shapes[name] = tuple(constant.dims)
            self._item_bytes[name] = _item_bytes(constant.data_type)
            self.weights.add(name)

    def is_known(self, name: str) -> bool:
        """The methods below have an answer."""
        return name in self._shapes

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises `UnknownShapeError`."""
        try:
            return self._shapes[name]
        except KeyError:
            raise UnknownShapeError(name) from None

    def elements(self, name: str) -> int:
        """Raises `UnknownShapeError`."""
        return prod(self.shape(name))

    def bytes(self, name: str) -> int:
        """Raises `UnknownShapeError`."""
        return self.elements(name) * self._item_bytes[name]


def graph_work(path: Path, batch_size: int) -> GraphWork:
    """Counts the ONNX graph in `path`, in this process."""
    return count_work(load_graph(path), batch_size)


def load_graph(path: Path) -> onnx.ModelProto:
    """The graph without large values; weights in files of their own are not read. Raises what onnx raises."""
    model = onnx.load(path, load_external_data=False)
    if not model.graph.node:
        raise ValueError(f"{path} holds no ONNX graph")
    for _, constant in _constants(model.graph):
        if prod(constant.dims) > _KEEP_ELEMENTS_MAX:
            for field in _VALUE_FIELDS:
                constant.ClearField(field)
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def count_work(graph: onnx.ModelProto, batch_size: int) -> GraphWork:
    """Work of one run; the batch dimension is the first of each input where it is not a number.

    Other unknown dimensions of inputs count as 1.
    """
    inferred = _infer_shapes(_with_batch(graph, batch_size))
    tensors = Tensors(inferred)
    nodes = list(inferred.graph.node)
    operations, complete = 0, True
    for node in nodes:
        try:
            operations += _OPERATIONS.get(node.op_type, _elementwise)(node, tensors)
        except UnknownShapeError:
            complete = False
        complete &= not any(attribute.HasField("g") for attribute in node.attribute)
    weight_bytes, weight_traffic, known = _weight_bytes(nodes, tensors)
    activation_bytes, all_known = _activation_bytes(nodes, tensors)
    return GraphWork(
        operations,
        weight_traffic + activation_bytes,
        weight_bytes,
        complete and known and all_known,
        kernel_count(nodes, tensors.weights),
    )


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _item_bytes(element_type: int) -> int:
    if element_type == onnx.TensorProto.UNDEFINED:
        return 0
    return int(onnx.helper.tensor_dtype_to_np_dtype(element_type).itemsize)


def _with_batch(graph: onnx.ModelProto, batch_size: int) -> onnx.ModelProto:
    """A copy whose inputs have numbers for shapes, and without other shapes, which may be of another batch size."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.type.tensor_type.shape for value in model.graph.input if value.name not in weights]
    batch_names = {shape.dim[0].dim_param for shape in inputs if shape.dim} - {""}
    for shape in inputs:
        for i, dim in enumerate(shape.dim):
            if not dim.HasField("dim_value") or dim.dim_value < 0:
                dim.dim_value = batch_size if i == 0 or dim.dim_param in batch_names else 1
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model


def _infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    try:  # following the values of shapes through a graph resolves what exporters compute, and fails on odd ones
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:
        return onnx.shape_inference.infer_shapes(model)


def _weight_bytes(nodes: list[onnx.NodeProto], tensors: Tensors) -> tuple[int, int, bool]:
    """Bytes of all weights, bytes of them that one run reads, and whether all is known.

    They differ where a table is only looked up: a run reads the rows it gathers.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in tensors.weights.intersection(node.input):
            readers.setdefault(name, []).append(node)
    held = traffic = 0
    known = True
    for name, users in readers.items():
        held += tensors.bytes(name)
        if all(node.op_type == "Gather" and node.input[0] == name for node in users):
            gathered, all_known = _sum_bytes({node.output[0] for node in users}, tensors)
            traffic += min(gathered, tensors.bytes(name))
            known &= all_known
        else:
            traffic += tensors.bytes(name)
    return held, traffic, known


def _activation_bytes(nodes: list[onnx.NodeProto], tensors: Tensors) -> tuple[int, bool]:
    """Bytes written by operators plus bytes read by them, each tensor once, and whether all is known."""
    views = {name for node in nodes if node.op_type in VIEWS for name in node.output}
    made = {name for node in nodes for name in node.output if name}
    used = {name for node in nodes for name in node.input if name}
    written, known_written = _sum_bytes(made - views - tensors.weights, tensors)
    read, known_read = _sum_bytes(used - views - tensors.weights, tensors)
    return written + read, known_written and known_read


def _sum_bytes(names: set[str], tensors: Tensors) -> tuple[int, bool]:
    known = {name for name in names if tensors.is_known(name)}
    return sum(map(tensors.bytes, known)), known == names


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _nothing(_node: onnx.NodeProto, _tensors: Tensors) -> int:
    return 0


def _elementwise(node: onnx.NodeProto, tensors: Tensors) -> int:
    """Softmax, normalisations and pools count as this too: they are small beside the multiply-adds."""
    return tensors.elements(node.output[0])


def _reduction(node: onnx.NodeProto, tensors: Tensors) -> int:
    return tensors.elements(node.input[0])


def _convolution(node: onnx.NodeProto, tensors: Tensors) -> int:
    kernel = tensors.shape(node.input[3 if node.op_type == "QLinearConv" else 1])  # (out, in / groups, *window)
    return 2 * tensors.elements(node.output[0]) * prod(kernel[1:])


def _transposed_convolution(node: onnx.NodeProto, tensors: Tensors) -> int:
    kernel = tensors.shape(node.input[1])  # (in, out / groups, *window)
    return 2 * tensors.elements(node.input[0]) * prod(kernel[1:])


def _matmul(node: onnx.NodeProto, tensors: Tensors) -> int:
    return 2 * tensors.elements(node.output[0]) * tensors.shape(node.input[0])[-1]


def _gemm(node: onnx.NodeProto, tensors: Tensors) -> int:
    depth = tensors.shape(node.input[0])[0 if _attribute(node, "transA", 0) else 1]
    return 2 * tensors.elements(node.output[0]) * depth


def _einsum(node: onnx.NodeProto, tensors: Tensors) -> int:
    equation = next(attribute.s for attribute in node.attribute if attribute.name == "equation").decode()
    if "." in equation:
        raise UnknownShapeError(equation)
    sizes: dict[str, int] = {}
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    for term, name in zip(terms, node.input, strict=True):
        sizes.update(zip(term, tensors.shape(name), strict=True))
    return 2 * prod(sizes.values())


def _attention(node: onnx.NodeProto, tensors: Tensors) -> int:
    """Query × key and weights × value; heads are a dimension or inside the last one, the product is the same."""
    keys = tensors.shape(node.input[1])[-2]
    if len(node.input) > 4 and node.input[4]:  # keys of earlier runs, (batch, heads, keys, head)
        keys += tensors.shape(node.input[4])[-2]
    return 2 * keys * (tensors.elements(node.input[0]) + tensors.elements(node.output[0]))


def _recurrent(node: onnx.NodeProto, tensors: Tensors) -> int:
    steps_and_rows = prod(tensors.shape(node.input[0])[:2])
    return 2 * steps_and_rows * (tensors.elements(node.input[1]) + tensors.elements(node.input[2]))


_OPERATIONS: dict[str, Callable[[onnx.NodeProto, Tensors], int]] = {
    **dict.fromkeys(_MOVES, _nothing),
    **dict.fromkeys(("Conv", "ConvInteger", "DeformConv", "QLinearConv"), _convolution),
    "ConvTranspose": _transposed_convolution,
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Attention": _attention,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ArgMax", "ArgMin"), _reduction),
    **dict.fromkeys((f"Reduce{kind}" for kind in ("Max", "Mean", "Min", "Sum", "SumSquare", "L1", "L2")), _reduction),
}


def main(arguments: list[str]) -> None:
    """Prints the work per batch size as one line of JSON."""
    end_with_parent()
    graph = load_graph(Path(arguments[0]))
    work = {int(size): count_work(graph, int(size)) for size in arguments[1:]}
    print(msgspec.json.encode(work).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
