"""The table of models and scales, and their place in a Triton model repository."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx

from zoo.convnext import ConvNext
from zoo.graph import Graph, parameter_count
from zoo.onnx_header import NotOnnxError, read_metadata
from zoo.resnet import ResNet
from zoo.roberta import Roberta
from zoo.vgg import Vgg
from zoo.vit import VisionTransformer
from zoo.yolov8 import Yolo

__all__ = ["MODELS", "SCALES", "Architecture", "build", "is_current", "parameter_count", "write"]

# Raise when the code that draws a model changes what it draws; a change of sizes is noticed by itself.
RECIPE_VERSION = 1
RECIPE_KEY = "isochrone.recipe"
SCALES = ("full", "small")

CONFIG = """\
backend: "isochrone"
max_batch_size: 8
parameters { key: "slo_ms" value { string_value: "100" } }
"""


class Sizes(Protocol):
    """One architecture at one size; frozen, with a repr that tells every size."""

    def draw(self, graph: Graph) -> None:
        """Add the whole model to an empty graph."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One model of the zoo."""

    title: str
    parameters_published: int  # of the full scale
    scales: Mapping[str, Sizes]


MODELS: dict[str, Architecture] = {
    "resnet50": Architecture(
        "ResNet-50",
        25_557_032,
        {
            "full": ResNet(),
            "small": ResNet(image=128, stem=32, widths=(32, 64, 128, 256)),
        },
    ),
    "yolov8n": Architecture(
        "YOLOv8n",
        3_157_200,
        {
            "full": Yolo(),
            "small": Yolo(image=128, widths=(24, 48, 96, 192, 384)),
        },
    ),
    "roberta_base": Architecture(
        "RoBERTa-base",
        124_645_632,
        {
            "full": Roberta(),
            "small": Roberta(vocabulary=8_192, positions=130, width=256, depth=6, heads=4),
        },
    ),
    "vit_b16": Architecture(
        "ViT-B/16",
        86_567_656,
        {
            "full": VisionTransformer(),
            "small": VisionTransformer(image=128, width=256, depth=12, heads=4),
        },
    ),
    "vgg19": Architecture(
        "VGG-19",
        143_667_240,
        {
            "full": Vgg(),
            "small": Vgg(image=96, widths=(32, 64, 128, 192, 192), hidden=1024),
        },
    ),
    "convnext_base": Architecture(
        "ConvNeXt-base",
        88_591_464,
        {
            "full": ConvNext(),
            "small": ConvNext(image=128, widths=(48, 96, 192, 384), depths=(3, 3, 9, 3)),
        },
    ),
}


def build(name: str, scale: str, *, shapes_only: bool = False) -> onnx.ModelProto:
    """The model as ONNX, the same bytes every time; with `shapes_only`, without weights: for counting."""
    graph = Graph(name, seed=zlib.crc32(f"{name}/{scale}".encode()), shapes_only=shapes_only)
    MODELS[name].scales[scale].draw(graph)
    return graph.model({RECIPE_KEY: _recipe(name, scale)})


def is_current(name: str, scale: str, repository: Path) -> bool:
    """The repository already holds this model, made by this recipe."""
    try:
        return read_metadata(_model_path(name, repository)).get(RECIPE_KEY) == _recipe(name, scale)
    except (FileNotFoundError, NotADirectoryError, NotOnnxError):
        return False


def write(name: str, scale: str, repository: Path) -> Path:
    """Put the model, and a config.pbtxt if there is none, into the repository; keep a current file."""
    path = _model_path(name, repository)
    path.parent.mkdir(parents=True, exist_ok=True)
    config = repository / name / "config.pbtxt"
    if not config.exists():
        _replace(config, CONFIG.encode())
    if not is_current(name, scale, repository):
        _replace(path, build(name, scale).SerializeToString(deterministic=True))
    return path


def _recipe(name: str, scale: str) -> str:
    return f"{RECIPE_VERSION} {scale} {MODELS[name].scales[scale]!r}"


def _model_path(name: str, repository: Path) -> Path:
    return repository / name / "1" / "model.onnx"


def _replace(path: Path, content: bytes) -> None:
    """A server that watches the repository sees the old file or the new one, never half of one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
