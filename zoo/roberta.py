"""The RoBERTa encoder with its pooler (Liu et al. 2019; layout as Hugging Face's RobertaModel)."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from zoo.graph import Graph, Tensor
from zoo.layers import centred, layer_norm, linear
from zoo.transformer import feed_forward, self_attention

START_ID, PADDING_ID, END_ID = 0, 1, 2
FIRST_ORDINARY_ID = 4  # after <s>, <pad>, </s> and <unk>
EPSILON = 1e-5
# Added to the score of a padded token: exp() of it is 0, and FP16 can still hold it.
MASKED_SCORE = -10_000.0


@dataclass(frozen=True, slots=True)
class Roberta:
    """Sizes of one RoBERTa; the defaults are RoBERTa-base."""

    tokens: int = 128
    vocabulary: int = 50_265
    positions: int = 514
    width: int = 768
    depth: int = 12
    heads: int = 12

    def draw(self, graph: Graph) -> None:
        """input_ids, attention_mask [batch, tokens] to last_hidden_state [batch, tokens, width] and
        pooler_output [batch, width]."""
        ids = graph.input("input_ids", (self.tokens,), TensorProto.INT64)
        mask = _score_mask(graph, graph.input("attention_mask", (self.tokens,), TensorProto.INT64))
        x = self._embed(graph, ids)
        for index in range(self.depth):
            with graph.scope(f"block{index}"):
                x = self._block(graph, x, mask)
        first = graph.node("Gather", x, graph.constant(0), axis=1)
        pooled = graph.node("Tanh", linear(graph, first, self.width, "pooler"))
        graph.output("last_hidden_state", x, (self.tokens, self.width))
        graph.output("pooler_output", pooled, (self.width,))

    def _embed(self, graph: Graph, ids: Tensor) -> Tensor:
        with graph.scope("embed"):
            words = self._table(graph, "word", self.vocabulary)
            places = self._table(graph, "position", self.positions)
            kind = self._table(graph, "token_type", 1)  # RoBERTa has one segment: a row added everywhere
            x = graph.node("Gather", words, ids, width=self.width, axis=0)
            place = graph.node("Gather", places, _position_ids(graph, ids), width=self.width, axis=0)
            x = graph.node("Add", graph.node("Add", x, kind), place)
            return layer_norm(graph, x, epsilon=EPSILON)

    def _table(self, graph: Graph, label: str, rows: int) -> str:
        return graph.parameter(label, (rows, self.width), centred(0.5))

    def _block(self, graph: Graph, x: Tensor, mask: Tensor) -> Tensor:
        attended = self_attention(graph, x, self.heads, mask=mask)
        x = layer_norm(graph, graph.node("Add", attended, x), epsilon=EPSILON, label="norm0")
        mapped = feed_forward(graph, x, 4 * self.width)
        return layer_norm(graph, graph.node("Add", mapped, x), epsilon=EPSILON, label="norm1")


def _position_ids(graph: Graph, ids: Tensor) -> Tensor:
    """Ordinary tokens count up from PADDING_ID + 1; padding stays at PADDING_ID."""
    is_padding = graph.node("Equal", ids, graph.constant(PADDING_ID))
    ordinary = graph.node("Cast", graph.node("Not", is_padding), to=TensorProto.INT64)
    count = graph.node("CumSum", ordinary, graph.constant(1))
    return graph.node("Add", graph.node("Mul", count, ordinary), graph.constant(PADDING_ID))


def _score_mask(graph: Graph, mask: Tensor) -> Tensor:
    """[batch, tokens] of ones and zeros to [batch, 1, 1, tokens] of 0 and MASKED_SCORE."""
    wide = graph.node("Unsqueeze", mask, graph.constant([1, 2]))
    absent = graph.node("Sub", graph.constant(1.0), graph.node("Cast", wide, to=TensorProto.FLOAT), width=1)
    return graph.node("Mul", absent, graph.constant(MASKED_SCORE))
