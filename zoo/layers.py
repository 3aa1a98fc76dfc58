"""Layers that several architectures share, and their initial weights.

A variance-keeping start matters although nothing is trained: without it a deep model's answer would be
the same for every input, or not finite.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from zoo.graph import Graph, Initializer, Tensor

RELU_GAIN = 2.0  # He et al. 2015, eq. 10: a ReLU halves the second moment
SILU_GAIN = 2.8  # E[silu(x)^2] = 0.356 for x ~ N(0, 1)
LINEAR_GAIN = 1.0


def uniform(low: float, high: float) -> Initializer:
    """Uniform values."""

    def draw(stream: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
        values = stream.random(shape, dtype=np.float32)
        values *= np.float32(high - low)
        values += np.float32(low)
        return values

    return draw


def centred(deviation: float) -> Initializer:
    """Values of mean 0 and this standard deviation: uniform, as Gaussian ones take three times as long."""
    return uniform(-math.sqrt(3.0) * deviation, math.sqrt(3.0) * deviation)


def conv(
    graph: Graph,
    x: Tensor,
    width: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
    gain: float = LINEAR_GAIN,
) -> Tensor:
    """A square convolution of an image: padded, unless it cuts patches that do not overlap."""
    fan_in = x.width // groups * kernel * kernel
    padding = 0 if stride == kernel else kernel // 2
    with graph.scope("conv"):
        shape = (width, x.width // groups, kernel, kernel)
        weights = [graph.parameter("weight", shape, centred(math.sqrt(gain / fan_in)))]
        if bias:
            weights.append(graph.parameter("bias", (width,), centred(0.05)))
        return graph.node(
            "Conv",
            x,
            *weights,
            width=width,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[padding] * 4,
            group=groups,
        )


def batch_norm(graph: Graph, x: Tensor, *, scale: float = 1.0, epsilon: float = 1e-5) -> Tensor:
    """Inference-mode batch normalisation, kept as its own node: ONNX Runtime folds it into the Conv."""
    with graph.scope("norm"):
        shape = (x.width,)
        return graph.node(
            "BatchNormalization",
            x,
            graph.parameter("weight", shape, uniform(0.8 * scale, 1.2 * scale)),
            graph.parameter("bias", shape, centred(0.1)),
            graph.buffer("running_mean", shape, centred(0.1)),
            graph.buffer("running_var", shape, uniform(0.7, 1.3)),
            epsilon=epsilon,
        )


def layer_norm(graph: Graph, x: Tensor, *, epsilon: float, label: str = "norm") -> Tensor:
    """Normalisation over the last axis."""
    with graph.scope(label):
        shape = (x.width,)
        return graph.node(
            "LayerNormalization",
            x,
            graph.parameter("weight", shape, uniform(0.8, 1.2)),
            graph.parameter("bias", shape, centred(0.05)),
            axis=-1,
            epsilon=epsilon,
        )


def linear(graph: Graph, x: Tensor, width: int, label: str, *, gain: float = LINEAR_GAIN) -> Tensor:
    """An affine map of the last axis."""
    with graph.scope(label):
        weight = graph.parameter("weight", (x.width, width), centred(math.sqrt(gain / x.width)))
        bias = graph.parameter("bias", (width,), centred(0.05))
        return graph.node("Add", graph.node("MatMul", x, weight, width=width), bias)


def gelu(graph: Graph, x: Tensor) -> Tensor:
    """x/2 (1 + erf(x/sqrt 2)), spelled as PyTorch exports it, which runtimes recognise and fuse."""
    error = graph.node("Erf", graph.node("Div", x, graph.constant(math.sqrt(2.0))))
    doubled = graph.node("Mul", x, graph.node("Add", error, graph.constant(1.0)))
    return graph.node("Mul", doubled, graph.constant(0.5))


def silu(graph: Graph, x: Tensor) -> Tensor:
    """x sigmoid(x)."""
    return graph.node("Mul", x, graph.node("Sigmoid", x))


def global_average(graph: Graph, x: Tensor) -> Tensor:
    """[batch, width, height, width] to [batch, width]."""
    return graph.node("Flatten", graph.node("GlobalAveragePool", x), axis=1)
