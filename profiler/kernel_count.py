"""Number of kernels that a GPU's engine launches for one run of an ONNX graph, estimated from the graph alone.

Engines fold what depends on constants only, follow views and shapes on the host, and fuse pointwise operators into the
kernel that makes their input. Bodies of If, Loop and Scan count as the one operator that holds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import onnx

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
"""Operators whose output is their input's memory."""
_ON_THE_HOST = frozenset({"Constant", "Shape", "Size"})
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "Cast"})
_ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Gelu", "Sigmoid", "HardSigmoid", "HardSwish", "Mish", "Tanh"}
    | {"Softplus", "Clip", "Erf", "Exp", "Log", "Sqrt", "Reciprocal", "Abs", "Neg"}
)
_NORMALISATIONS = frozenset({"BatchNormalization"})
"""At inference a scale and a shift."""
_POINTWISE = _ARITHMETIC | _ACTIVATIONS | _NORMALISATIONS


def kernel_count(nodes: Sequence[onnx.NodeProto], weights: Collection[str]) -> int:
    """Count the kernels of nodes in the order of their execution. weights: names of constants."""
    constant = set(weights) | {""}  # an input left out has an empty name
    readers = Counter(name for node in nodes for name in node.input)
    fusible: set[str] = set()
    """Tensors that a kernel makes and one operator alone reads."""
    kernels = 0
    for node in nodes:
        if node.op_type in _ON_THE_HOST or (node.input and constant.issuperset(node.input)):
            constant.update(node.output)
        elif node.op_type in VIEWS:
            if node.input[0] in fusible:
                fusible.update(_read_once(node.output, readers))
        else:
            kernels += node.op_type not in _POINTWISE or fusible.isdisjoint(node.input)
            fusible.update(_read_once(node.output, readers))
    return kernels


def _read_once(names: Iterable[str], readers: Counter[str]) -> list[str]:
    return [name for name in names if readers[name] == 1]
