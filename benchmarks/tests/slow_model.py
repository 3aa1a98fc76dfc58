"""A model whose execution takes a wanted time, in an ONNX file."""

from __future__ import annotations

from pathlib import Path

from onnx import helper

from tests.fakes.graphs import ones, write_model


def write_slow(path: Path, layers: int) -> Path:
    """`x` [batch, 16] → `y` [batch, 512], some 0.1 ms per layer and row."""
    nodes = [helper.make_node("MatMul", ["x", "into"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{i}", "w"], [f"h{i + 1}"]) for i in range(layers)]
    nodes += [helper.make_node("Identity", [f"h{layers}"], ["y"])]
    weights = {"into": ones(16, 512), "w": ones(512, 512) / 512}
    return write_model(path, nodes, {"x": ["batch", 16]}, {"y": ["batch", 512]}, weights)
