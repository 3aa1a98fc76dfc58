"""YOLOv8 for detection: backbone, FPN-PAN neck and decoupled head (layout as Ultralytics' yolov8.yaml).

The answer is what the usual export gives: boxes decoded to pixels, class scores, no suppression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.graph import Array, Graph, Tensor
from zoo.layers import SILU_GAIN, batch_norm, conv, silu

STRIDES = (8, 16, 32)
BINS = 16  # of the distribution over each of a box's four distances (Li et al. 2020, eq. 6)
EPSILON = 1e-3


@dataclass(frozen=True, slots=True)
class Yolo:
    """Sizes of one YOLOv8; the defaults are YOLOv8n for COCO."""

    image: int = 640
    widths: tuple[int, int, int, int, int] = (16, 32, 64, 128, 256)
    depths: tuple[int, int, int, int] = (1, 2, 2, 1)
    neck_depth: int = 1
    classes: int = 80

    @property
    def anchors(self) -> int:
        """Candidate boxes of one image."""
        return sum((self.image // stride) ** 2 for stride in STRIDES)

    def draw(self, graph: Graph) -> None:
        """images [batch, 3, image, image] to output0 [batch, 4 + classes, anchors]."""
        images = graph.input("images", (3, self.image, self.image))
        levels = self._neck(graph, *self._backbone(graph, images))
        boxes, scores = self._head(graph, levels)
        answer = graph.node("Concat", boxes, scores, axis=1, width=4 + self.classes)
        graph.output("output0", answer, (4 + self.classes, self.anchors))

    def _backbone(self, graph: Graph, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = _block(graph, x, self.widths[0], 3, stride=2, label="backbone.stem")
        stages: list[Tensor] = []
        for index, (width, depth) in enumerate(zip(self.widths[1:], self.depths, strict=True)):
            with graph.scope(f"backbone.stage{index}"):
                x = _block(graph, x, width, 3, stride=2, label="shrink")
                x = _c2f(graph, x, width, depth, shortcut=True)
                stages.append(x)
        return stages[1], stages[2], _sppf(graph, x)

    def _neck(self, graph: Graph, fine: Tensor, middle: Tensor, coarse: Tensor) -> list[Tensor]:
        with graph.scope("neck"):
            up = self._merge(graph, _enlarge(graph, coarse), middle, middle.width, "up0")
            small = self._merge(graph, _enlarge(graph, up), fine, fine.width, "up1")
            down = _block(graph, small, small.width, 3, stride=2, label="shrink0")
            medium = self._merge(graph, down, up, middle.width, "down0")
            down = _block(graph, medium, medium.width, 3, stride=2, label="shrink1")
            large = self._merge(graph, down, coarse, coarse.width, "down1")
        return [small, medium, large]

    def _merge(self, graph: Graph, x: Tensor, side: Tensor, width: int, label: str) -> Tensor:
        with graph.scope(label):
            joined = graph.node("Concat", x, side, axis=1, width=x.width + side.width)
            return _c2f(graph, joined, width, self.neck_depth, shortcut=False)

    def _head(self, graph: Graph, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        box_width = max(16, levels[0].width // 4, 4 * BINS)
        score_width = max(levels[0].width, min(self.classes, 100))
        boxes: list[Tensor] = []
        scores: list[Tensor] = []
        for index, level in enumerate(levels):
            with graph.scope(f"head.level{index}"):
                boxes.append(_branch(graph, level, box_width, 4 * BINS, "box"))
                scores.append(_branch(graph, level, score_width, self.classes, "score"))
        with graph.scope("head"):
            distances = _expected_distances(graph, graph.node("Concat", *boxes, axis=2), self.anchors)
            decoded = self._decode(graph, distances)
            return decoded, graph.node("Sigmoid", graph.node("Concat", *scores, axis=2))

    def _decode(self, graph: Graph, distances: Tensor) -> Tensor:
        """Distances (left, top, right, bottom) in cells to (centre x, centre y, width, height) in pixels."""
        centres, strides = _cells(self.image)
        before, after = graph.halves(distances, axis=1)
        low = graph.node("Sub", graph.constant(centres), before, width=2)
        high = graph.node("Add", graph.constant(centres), after, width=2)
        middle = graph.node("Div", graph.node("Add", low, high), graph.constant(2.0))
        box = graph.node("Concat", middle, graph.node("Sub", high, low), axis=1, width=4)
        return graph.node("Mul", box, graph.constant(strides))


def _block(
    graph: Graph, x: Tensor, width: int, kernel: int, *, label: str, stride: int = 1, scale: float = 1.0
) -> Tensor:
    with graph.scope(label):
        x = conv(graph, x, width, kernel, stride=stride, bias=False, gain=SILU_GAIN)
        return silu(graph, batch_norm(graph, x, scale=scale, epsilon=EPSILON))


def _c2f(graph: Graph, x: Tensor, width: int, depth: int, *, shortcut: bool) -> Tensor:
    """Every bottleneck's answer goes on both to the next bottleneck and to the joint at the end."""
    with graph.scope("c2f"):
        parts = list(graph.halves(_block(graph, x, width, 1, label="enter"), axis=1))
        for index in range(depth):
            with graph.scope(f"bottleneck{index}"):
                last = parts[-1]
                inner = _block(graph, last, last.width, 3, label="first")
                inner = _block(graph, inner, last.width, 3, label="second", scale=0.6 if shortcut else 1.0)
                parts.append(graph.node("Add", last, inner) if shortcut else inner)
        joined = graph.node("Concat", *parts, axis=1, width=sum(part.width for part in parts))
        return _block(graph, joined, width, 1, label="leave")


def _sppf(graph: Graph, x: Tensor) -> Tensor:
    with graph.scope("backbone.sppf"):
        pools = [_block(graph, x, x.width // 2, 1, label="enter")]
        for _ in range(3):
            pools.append(graph.node("MaxPool", pools[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4))
        joined = graph.node("Concat", *pools, axis=1, width=2 * x.width)
        return _block(graph, joined, x.width, 1, label="leave")


def _enlarge(graph: Graph, x: Tensor) -> Tensor:
    scales = graph.constant(np.asarray([1, 1, 2, 2], np.float32))
    return graph.node(
        "Resize",
        x,
        "",
        scales,
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )


def _branch(graph: Graph, x: Tensor, inner: int, width: int, label: str) -> Tensor:
    """[batch, x.width, side, side] to [batch, width, side * side]."""
    with graph.scope(label):
        x = _block(graph, x, inner, 3, label="first")
        x = _block(graph, x, inner, 3, label="second")
        x = conv(graph, x, width, 1)
        return graph.node("Reshape", x, graph.constant([0, width, -1]))


def _expected_distances(graph: Graph, logits: Tensor, anchors: int) -> Tensor:
    """The mean bin of each distribution: [batch, 4 * BINS, anchors] to [batch, 4, anchors]."""
    apart = graph.node("Reshape", logits, graph.constant([0, 4, BINS, anchors]), width=BINS)
    shares = graph.node("Softmax", graph.node("Transpose", apart, perm=[0, 2, 1, 3]), axis=1)
    # Ultralytics keeps the bins' values as a frozen convolution, and its count includes them.
    bins = graph.parameter("bins.weight", (1, BINS, 1, 1), _bin_values)
    mean = graph.node("Conv", shares, bins, width=1, kernel_shape=[1, 1])
    return graph.node("Reshape", mean, graph.constant([0, 4, anchors]), width=4)


def _bin_values(_: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.arange(BINS, dtype=np.float32).reshape(shape)


def _cells(image: int) -> tuple[Array, Array]:
    """Centres [1, 2, anchors] in cells of their own level, and strides [1, 1, anchors] in pixels."""
    centres: list[Array] = []
    strides: list[Array] = []
    for stride in STRIDES:
        side = np.arange(image // stride, dtype=np.float32) + np.float32(0.5)
        rows, columns = np.meshgrid(side, side, indexing="ij")
        centres.append(np.stack([columns.ravel(), rows.ravel()]))
        strides.append(np.full((1, side.size**2), stride, np.float32))
    return np.concatenate(centres, axis=1)[None], np.concatenate(strides, axis=1)[None]
