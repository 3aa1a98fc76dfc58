"""A growing ONNX graph: names, nodes, tensors and the one seeded stream their values come from.

Knows no layer and no architecture. With `shapes_only`, weights carry dims but no data, so that a model
of any size can be counted in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

Array: TypeAlias = NDArray[Any]
Initializer: TypeAlias = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float32]]

BATCH = "batch"
OPSET = 17
IR_VERSION = 8
PARAMETER = "parameter"
BUFFER = "buffer"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value in the graph; `width` is its feature axis: axis 1 of an image, the last axis of tokens."""

    name: str
    width: int


class Graph:
    """Collects one model; every input and output has the symbolic first dimension `batch`."""

    def __init__(self, name: str, seed: int, *, shapes_only: bool = False) -> None:
        self._stream = np.random.default_rng(seed)
        self._shapes_only = shapes_only
        self._scopes: list[str] = []
        self._names_taken: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        # Filled in place: each copy of a finished graph would cost another 500 MB at the full scale.
        self._model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="isochrone.zoo")
        self._model.opset_import.append(helper.make_opsetid("", OPSET))
        self._proto = self._model.graph
        self._proto.name = name

    @contextmanager
    def scope(self, label: str) -> Iterator[None]:
        """Prefix the names of what is added inside, as PyTorch's module paths do."""
        self._scopes.append(label)
        try:
            yield
        finally:
            self._scopes.pop()

    def input(self, name: str, shape: Sequence[int], dtype: int = TensorProto.FLOAT) -> Tensor:
        """Declare an input of [batch, *shape]."""
        self._proto.input.append(helper.make_tensor_value_info(name, dtype, [BATCH, *shape]))
        return Tensor(name, shape[0])

    def output(self, name: str, value: Tensor, shape: Sequence[int]) -> None:
        """Declare `value` as the FP32 output `name` of [batch, *shape]."""
        self._proto.node.append(helper.make_node("Identity", [value.name], [name], name=f"output.{name}"))
        self._proto.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape]))

    def node(self, op: str, *inputs: Tensor | str, width: int | None = None, **attributes: Any) -> Tensor:
        """Add a one-output node; its width is the first input's unless said."""
        if width is None:
            first = inputs[0]
            assert isinstance(first, Tensor), f"{op}: say the output's width"
            width = first.width
        (name,) = self._emit(op, inputs, 1, attributes)
        return Tensor(name, width)

    def halves(self, value: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Split `value` into two equal parts along its feature axis."""
        half = value.width // 2
        first, second = self._emit("Split", (value, self.constant([half, half])), 2, {"axis": axis})
        return Tensor(first, half), Tensor(second, half)

    def parameter(self, label: str, shape: tuple[int, ...], init: Initializer) -> str:
        """Add a trained weight: it counts."""
        return self._weight(label, shape, init, PARAMETER)

    def buffer(self, label: str, shape: tuple[int, ...], init: Initializer) -> str:
        """Add a statistic, such as a running mean: as published, it does not count."""
        return self._weight(label, shape, init, BUFFER)

    def constant(self, value: Array | Sequence[int] | int | float) -> str:
        """Add a constant of the architecture, once per content: Python ints become INT64, floats FP32."""
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant.{len(self._constants)}"
            self._add_tensor(self._constants[key], array.shape, array, BUFFER)
        return self._constants[key]

    def model(self, metadata: dict[str, str]) -> onnx.ModelProto:
        """The finished model."""
        helper.set_model_props(self._model, metadata)
        return self._model

    def _emit(self, op: str, inputs: Sequence[Tensor | str], outputs: int, attributes: dict[str, Any]) -> list[str]:
        name = self._unique(op)
        results = [name] if outputs == 1 else [f"{name}.{index}" for index in range(outputs)]
        sources = [value.name if isinstance(value, Tensor) else value for value in inputs]
        self._proto.node.append(helper.make_node(op, sources, results, name=name, **attributes))
        return results

    def _weight(self, label: str, shape: tuple[int, ...], init: Initializer, role: str) -> str:
        name = self._unique(label)
        values = None if self._shapes_only else init(self._stream, shape)
        self._add_tensor(name, shape, values, role)
        return name

    def _add_tensor(self, name: str, shape: tuple[int, ...], values: Array | None, role: str) -> None:
        dtype = np.dtype(np.float32) if values is None else values.dtype
        tensor = self._proto.initializer.add()
        tensor.name = name
        tensor.doc_string = role
        tensor.dims.extend(shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(dtype)
        if values is not None:
            assert values.shape == shape
            tensor.raw_data = values.tobytes()

    def _unique(self, label: str) -> str:
        path = ".".join([*self._scopes, label])
        count = self._names_taken.get(path, 0)
        self._names_taken[path] = count + 1
        return path if count == 0 else f"{path}_{count}"


def parameter_count(model: onnx.ModelProto) -> int:
    """Trained weights as papers count them: no running statistics, no constants."""
    return sum(
        int(np.prod(tensor.dims, dtype=np.int64))
        for tensor in model.graph.initializer
        if tensor.doc_string == PARAMETER
    )
