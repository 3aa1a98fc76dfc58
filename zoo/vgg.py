"""VGG without batch normalisation (Simonyan & Zisserman 2015, table 1, column E)."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.graph import Graph
from zoo.layers import RELU_GAIN, conv, linear


@dataclass(frozen=True, slots=True)
class Vgg:
    """Sizes of one VGG; the defaults are VGG-19."""

    image: int = 224
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    depths: tuple[int, ...] = (2, 2, 4, 4, 4)
    hidden: int = 4096
    classes: int = 1000

    def draw(self, graph: Graph) -> None:
        """images [batch, 3, image, image] to logits [batch, classes]."""
        x = graph.input("images", (3, self.image, self.image))
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            for index in range(depth):
                with graph.scope(f"stage{stage}.layer{index}"):
                    x = graph.node("Relu", conv(graph, x, width, 3, gain=RELU_GAIN))
            x = graph.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        grid = self.image // 2 ** len(self.depths)
        x = graph.node("Flatten", x, axis=1, width=x.width * grid * grid)
        for index in range(2):
            x = graph.node("Relu", linear(graph, x, self.hidden, f"hidden{index}", gain=RELU_GAIN))
        graph.output("logits", linear(graph, x, self.classes, "head"), (self.classes,))
