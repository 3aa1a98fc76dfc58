"""Names the operators of a graph that explain why its rows cannot be told apart: random ones, and batch-wide scales."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Dropout"}
)
BATCH_WIDE_SCALE = frozenset(
    {
        "DynamicQuantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
    }
)
"""Dynamic quantisation: one scale for the whole tensor, from its least and largest value."""


def operators_of(file: Path) -> set[str]:
    """Kinds of all operators, in subgraphs and functions too. Raises what onnx raises."""
    import onnx  # noqa: PLC0415 - most trials need none of it

    model = onnx.load(file, load_external_data=False)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return {node.op_type for node in _with_subgraphs(nodes)}


def _with_subgraphs(nodes: list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _with_subgraphs(list(graph.node))


def explanation(file: Path, *, random: bool) -> str:
    """Clause to append, empty where the graph explains nothing or cannot be read. random: whether its answers are."""
    try:
        kinds = operators_of(file)
    except Exception:  # whatever onnx raises: the explanation is an addition
        return ""
    if found := sorted(kinds & BATCH_WIDE_SCALE):
        return f"; it is quantised dynamically ({', '.join(found)}), so the whole batch shares a scale"
    if random and (found := sorted(kinds & RANDOM)):
        return f"; it has random operators ({', '.join(found)})"
    return ""
