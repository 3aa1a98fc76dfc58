"""The two halves of a transformer block; where to normalise is each architecture's own."""

from __future__ import annotations

import math

from zoo.graph import Graph, Tensor
from zoo.layers import RELU_GAIN, gelu, linear


def self_attention(graph: Graph, x: Tensor, heads: int, *, mask: Tensor | None = None, gain: float = 1.0) -> Tensor:
    """Multi-head attention over [batch, tokens, width]; `mask` is added to the scores before the softmax."""
    with graph.scope("attention"):
        query = _to_heads(graph, linear(graph, x, x.width, "query"), heads, perm=[0, 2, 1, 3])
        key = _to_heads(graph, linear(graph, x, x.width, "key"), heads, perm=[0, 2, 3, 1])
        value = _to_heads(graph, linear(graph, x, x.width, "value"), heads, perm=[0, 2, 1, 3])
        scores = graph.node("MatMul", query, key)
        scores = graph.node("Div", scores, graph.constant(math.sqrt(x.width // heads)))
        if mask is not None:
            scores = graph.node("Add", scores, mask)
        mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
        joined = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
        joined = graph.node("Reshape", joined, graph.constant([0, 0, x.width]), width=x.width)
        return linear(graph, joined, x.width, "output", gain=gain)


def feed_forward(graph: Graph, x: Tensor, hidden: int, *, gain: float = 1.0) -> Tensor:
    """Two affine maps with a GELU between them."""
    with graph.scope("mlp"):
        inner = gelu(graph, linear(graph, x, hidden, "up", gain=RELU_GAIN))
        return linear(graph, inner, x.width, "down", gain=gain)


def _to_heads(graph: Graph, x: Tensor, heads: int, perm: list[int]) -> Tensor:
    apart = graph.node("Reshape", x, graph.constant([0, 0, heads, x.width // heads]))
    return graph.node("Transpose", apart, perm=perm)
