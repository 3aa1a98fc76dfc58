"""The vision transformer (Dosovitskiy et al. 2021, section 3.1).

Patches and a class token, then blocks that normalise before each half.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.graph import Graph, Tensor
from zoo.layers import centred, conv, layer_norm, linear
from zoo.transformer import feed_forward, self_attention

EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class VisionTransformer:
    """Sizes of one ViT; the defaults are ViT-B/16."""

    image: int = 224
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    classes: int = 1000

    def draw(self, graph: Graph) -> None:
        """images [batch, 3, image, image] to logits [batch, classes]."""
        x = self._embed(graph, graph.input("images", (3, self.image, self.image)))
        for index in range(self.depth):
            with graph.scope(f"block{index}"):
                x = self._block(graph, x)
        x = layer_norm(graph, x, epsilon=EPSILON)
        first = graph.node("Gather", x, graph.constant(0), axis=1)
        graph.output("logits", linear(graph, first, self.classes, "head"), (self.classes,))

    def _embed(self, graph: Graph, images: Tensor) -> Tensor:
        with graph.scope("embed"):
            x = conv(graph, images, self.width, self.patch, stride=self.patch)
            x = graph.node("Reshape", x, graph.constant([0, self.width, -1]))
            x = graph.node("Transpose", x, perm=[0, 2, 1])
            batch = graph.node("Shape", x, start=0, end=1)
            shape = graph.node("Concat", batch, graph.constant([1, self.width]), axis=0)
            token = graph.parameter("class_token", (1, 1, self.width), centred(0.5))
            tokens = graph.node("Expand", token, shape, width=self.width)
            x = graph.node("Concat", tokens, x, axis=1)
            count = (self.image // self.patch) ** 2 + 1
            return graph.node("Add", x, graph.parameter("position", (1, count, self.width), centred(0.5)))

    def _block(self, graph: Graph, x: Tensor) -> Tensor:
        gain = 1.0 / self.depth  # the residual sum grows by one such share per block
        inner = layer_norm(graph, x, epsilon=EPSILON, label="norm0")
        x = graph.node("Add", self_attention(graph, inner, self.heads, gain=gain), x)
        inner = layer_norm(graph, x, epsilon=EPSILON, label="norm1")
        return graph.node("Add", feed_forward(graph, inner, 4 * self.width, gain=gain), x)
