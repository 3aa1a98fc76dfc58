"""ResNet with bottleneck blocks (He et al. 2016, table 1; stride on the 3x3, as torchvision has it)."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.graph import Graph, Tensor
from zoo.layers import RELU_GAIN, batch_norm, conv, global_average, linear

EXPANSION = 4


@dataclass(frozen=True, slots=True)
class ResNet:
    """Sizes of one ResNet; the defaults are ResNet-50."""

    image: int = 224
    stem: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    classes: int = 1000

    def draw(self, graph: Graph) -> None:
        """images [batch, 3, image, image] to logits [batch, classes]."""
        x = graph.input("images", (3, self.image, self.image))
        with graph.scope("stem"):
            x = _conv_norm(graph, x, self.stem, 7, stride=2, label="spatial")
            x = graph.node("Relu", x)
            x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            for block in range(depth):
                with graph.scope(f"stage{stage}.block{block}"):
                    x = _bottleneck(graph, x, width, stride=2 if stage > 0 and block == 0 else 1)
        logits = linear(graph, global_average(graph, x), self.classes, "head")
        graph.output("logits", logits, (self.classes,))


def _bottleneck(graph: Graph, x: Tensor, width: int, stride: int) -> Tensor:
    inner = graph.node("Relu", _conv_norm(graph, x, width, 1, label="reduce"))
    inner = graph.node("Relu", _conv_norm(graph, inner, width, 3, stride=stride, label="spatial"))
    # A small last scale keeps the sum's variance from doubling in every block.
    inner = _conv_norm(graph, inner, width * EXPANSION, 1, label="expand", scale=0.4)
    if x.width != inner.width or stride != 1:
        x = _conv_norm(graph, x, inner.width, 1, stride=stride, label="shortcut", scale=0.7)
    return graph.node("Relu", graph.node("Add", inner, x))


def _conv_norm(
    graph: Graph, x: Tensor, width: int, kernel: int, *, label: str, stride: int = 1, scale: float = 1.0
) -> Tensor:
    with graph.scope(label):
        x = conv(graph, x, width, kernel, stride=stride, bias=False, gain=RELU_GAIN)
        return batch_norm(graph, x, scale=scale)
