"""ONNX's own backend tests: models of an operator or a few, with inputs and answers, which the `onnx` wheel ships."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper

from tests.onnx_nodes.reference import Arrays

_DATA = Path(onnx.backend.test.__file__).parent / "data"
_SETS = ("node", "simple", "pytorch-operator", "pytorch-converted")
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


@dataclass(frozen=True)
class Case:
    """A model as the wheel ships it. name: also the model's on the server."""

    name: str
    file: Path

    def model(self) -> onnx.ModelProto:
        return onnx.load(self.file, load_external_data=False)

    def inputs(self) -> Arrays | None:
        """By name; None where one is no tensor that numpy knows: a sequence, or nothing."""
        graph = self.model().graph
        weights = {tensor.name for tensor in graph.initializer}  # old files list them as inputs too
        return self._tensors("input", [info for info in graph.input if info.name not in weights])

    def answers(self) -> Arrays | None:
        """What ONNX's reference gives, by name; None as above."""
        return self._tensors("output", list(self.model().graph.output))

    def _tensors(self, kind: str, infos: list[onnx.ValueInfoProto]) -> Arrays | None:
        if not all(info.type.HasField("tensor_type") for info in infos):
            return None
        folder = self.file.parent / "test_data_set_0"
        return {info.name: _tensor(folder / f"{kind}_{number}.pb") for number, info in enumerate(infos)}


def cases() -> list[Case]:
    """All of them, in order of their names."""
    files = (file for kind in _SETS for file in sorted((_DATA / kind).glob("*/model.onnx")))
    return [Case(f"{file.parts[-3]}-{file.parts[-2].removeprefix('test_')}", file) for file in files]


def operators(model: onnx.ModelProto) -> set[str]:
    """Types of all nodes, those of subgraphs and of the model's functions included."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return {node.op_type for node in _with_subgraphs(nodes)}


def is_random(model: onnx.ModelProto) -> bool:
    """Two runs differ. Dropout with a third input may be in training."""
    training = any(node.op_type == "Dropout" and len(node.input) > 2 for node in model.graph.node)
    return training or bool(operators(model) & _RANDOM)


def _with_subgraphs(nodes: list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _with_subgraphs(list(graph.node))


def _tensor(file: Path) -> np.ndarray[Any, Any]:
    return numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))
