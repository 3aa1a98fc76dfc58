"""ConvNeXt (Liu et al. 2022, section 2): depthwise 7x7, channel-last norm and MLP, layer scale."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.graph import Graph, Tensor
from zoo.layers import conv, global_average, layer_norm, linear, uniform
from zoo.transformer import feed_forward

EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class ConvNext:
    """Sizes of one ConvNeXt; the defaults are ConvNeXt-base."""

    image: int = 224
    widths: tuple[int, ...] = (128, 256, 512, 1024)
    depths: tuple[int, ...] = (3, 3, 27, 3)
    classes: int = 1000

    def draw(self, graph: Graph) -> None:
        """images [batch, 3, image, image] to logits [batch, classes]."""
        x = graph.input("images", (3, self.image, self.image))
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            with graph.scope(f"stage{stage}"):
                x = _shrink(graph, x, width, first=stage == 0)
                for block in range(depth):
                    with graph.scope(f"block{block}"):
                        x = _block(graph, x)
        x = layer_norm(graph, global_average(graph, x), epsilon=EPSILON)
        graph.output("logits", linear(graph, x, self.classes, "head"), (self.classes,))


def _shrink(graph: Graph, x: Tensor, width: int, *, first: bool) -> Tensor:
    """The stem is patches then norm; between stages it is norm then patches."""
    if first:
        return _image_norm(graph, conv(graph, x, width, 4, stride=4))
    return conv(graph, _image_norm(graph, x), width, 2, stride=2)


def _block(graph: Graph, x: Tensor) -> Tensor:
    inner = conv(graph, x, x.width, 7, groups=x.width)
    inner = graph.node("Transpose", inner, perm=[0, 2, 3, 1])
    inner = feed_forward(graph, layer_norm(graph, inner, epsilon=EPSILON), 4 * x.width)
    scale = graph.parameter("layer_scale", (x.width,), uniform(0.1, 0.4))
    inner = graph.node("Transpose", graph.node("Mul", inner, scale), perm=[0, 3, 1, 2])
    return graph.node("Add", inner, x)


def _image_norm(graph: Graph, x: Tensor) -> Tensor:
    last = graph.node("Transpose", x, perm=[0, 2, 3, 1])
    return graph.node("Transpose", layer_norm(graph, last, epsilon=EPSILON), perm=[0, 3, 1, 2])
