"""Random small ONNX graphs over one input, half of which do something across their rows, and requests for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

_IR_VERSION, _OPSET = 8, 17
Array = npt.NDArray[np.float32]


@dataclass
class Grown:
    """A graph under way. value: the name of its newest tensor, FP32 of `rank` dimensions."""

    random: np.random.Generator
    rank: int
    value: str = "x"

    def __post_init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: npt.ArrayLike) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def axis(self) -> int:
        return int(self.random.integers(0, self.rank))


def elementwise(g: Grown) -> None:
    kind = g.random.choice(["Relu", "Neg", "Abs", "Sigmoid", "Tanh", "Floor", "Sign"])
    g.value = g.add(str(kind), g.value)


def arithmetic(g: Grown) -> None:
    number = np.float32(g.random.choice([-2.0, -0.5, 0.25, 1.0, 3.0]))
    g.value = g.add(str(g.random.choice(["Add", "Mul", "Sub", "Max", "Min"])), g.value, g.constant(number))


def reduction(g: Grown) -> None:
    """Of one axis, taken away from what it is of."""
    axis = g.axis()
    kind = str(g.random.choice(["ReduceMean", "ReduceMax", "ReduceMin"]))
    reduced = g.add(kind, g.value, axes=[axis], keepdims=1)
    g.value = g.add(str(g.random.choice(["Sub", "Add", "Max"])), g.value, reduced)


def threshold(g: Grown) -> None:
    """Something across an axis that only some values bring about."""
    axis = g.axis()
    most = g.add("ReduceMax", g.value, axes=[axis], keepdims=1)
    over = g.add("Greater", most, g.constant(np.float32(g.random.choice([-0.5, 0.9, 5.0]))))
    g.value = g.add("Where", over, g.value, g.add("Neg", g.value))


def cumulated(g: Grown) -> None:
    g.value = g.add("CumSum", g.value, g.constant(np.int64(g.axis())), reverse=int(g.random.integers(0, 2)))


def softmax(g: Grown) -> None:
    g.value = g.add("Softmax", g.value, axis=g.axis())


def transpose(g: Grown) -> None:
    g.value = g.add("Transpose", g.value, perm=g.random.permutation(g.rank).tolist())


def gather(g: Grown) -> None:
    """The same indices along one axis; along the rows only the first is sure to be there."""
    axis = g.axis()
    g.value = g.add("Gather", g.value, g.constant(np.zeros(int(g.random.integers(1, 3)), np.int64)), axis=axis)


def top(g: Grown) -> None:
    """Sorted along an axis, all that are there."""
    axis = g.axis()
    size = g.add("Gather", g.add("Shape", g.value), g.constant(np.array([axis])), axis=0)
    name = g.add("TopK", g.value, size, axis=axis)
    g.nodes[-1].output.append(f"{name}_places")
    g.value = name


def nonzero(g: Grown) -> None:
    """Places of values above a limit: one row each, an integer per dimension."""
    over = g.add("Greater", g.value, g.constant(np.float32(g.random.choice([0.0, 0.5]))))
    places = g.add("Transpose", g.add("NonZero", over), perm=[1, 0])
    g.value, g.rank = g.add("Cast", places, to=TensorProto.FLOAT), 2


def by_count(g: Grown) -> None:
    """Divided by how many there are along an axis."""
    axis = g.axis()
    size = g.add("Gather", g.add("Shape", g.value), g.constant(np.int64(axis)), axis=0)
    g.value = g.add("Div", g.value, g.add("Cast", size, to=TensorProto.FLOAT))


STEPS = (
    *(elementwise, elementwise, arithmetic, arithmetic),
    *(reduction, threshold, cumulated, softmax, transpose, gather, top, nonzero, by_count),
)


def random_graph(random: np.random.Generator) -> onnx.ModelProto:
    """`x` FP32 ["batch", …] with static and dynamic dimensions → `y`, whose first dimension is dynamic."""
    dims: list[int | str] = [
        "batch",
        *(str(name) if random.random() < 0.5 else int(random.integers(1, 5)) for name in ("m", "n")),
    ][: int(random.integers(2, 4))]
    grown = Grown(random, len(dims))
    for _ in range(int(random.integers(1, 6))):
        STEPS[int(random.integers(0, len(STEPS)))](grown)
    grown.nodes.append(helper.make_node("Identity", [grown.value], ["y"]))
    graph = helper.make_graph(
        grown.nodes,
        "random",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"y{i}" for i in range(grown.rank)])],
        grown.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def random_requests(random: np.random.Generator, shape: tuple[int, ...]) -> list[Array]:
    """Two to five requests of one to three rows each. shape: of a row."""
    scales = (0.01, 1.0, 1.0, 10.0, 1000.0)
    return [
        (random.standard_normal((int(random.integers(1, 4)), *shape)) * random.choice(scales)).astype(np.float32)
        for _ in range(int(random.integers(2, 6)))
    ]
