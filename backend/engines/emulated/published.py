"""Published solo latencies of models on GPUs, in microseconds by batch size; `data/` has the sources and licences.

Tests hold every latency and busy share here against the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

NVIDIA = "NVIDIA/DeepLearningExamples"
PARVAGPU = "ParvaGPU"


@dataclass(frozen=True)
class PublishedModel:
    """A model. solo_us: by GPU and batch size. gflop, weights_m: of a row's operations (two per multiply-add), and
    millions of weights. busy_share: u by batch size, where there is one GPU. kernel_us: mean kernel time on a V100 at
    batch `kernel_batch` (Orion), None where there is none. tokens: of an input of text; 0: an image of `side`.
    """

    source: str
    engine: str
    solo_us: Mapping[str, Mapping[int, int]]
    gflop: float
    weights_m: float
    busy_share: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    kernel_us: float | None = None
    kernel_batch: int = 4
    tokens: int = 0
    side: int = 224


def _bert(gflop: float, weights_m: float, latencies: Mapping[str, Mapping[int, int]]) -> PublishedModel:
    """BERT by Triton's TensorRT backend, FP16, 384 tokens: `infer_ms`, the model's own time."""
    return PublishedModel(NVIDIA, "TensorRT, FP16", latencies, gflop, weights_m, MappingProxyType({}), 85.0, 2, 384)


_SIZES = (1, 2, 4, 8, 16)


def _pytorch(
    solo_us: tuple[int, ...],
    busy_share: tuple[float, ...],
    gflop: float,
    weights_m: float,
    kernel_us: float | None = None,
    **tensors: int,
) -> PublishedModel:
    """A model of ParvaGPU's on a whole A100: size over throughput; u fitted to the slowdowns of two to five copies."""
    latencies = {"a100": dict(zip(_SIZES, solo_us, strict=True))}
    shares = dict(zip(_SIZES, busy_share, strict=True))
    return PublishedModel(PARVAGPU, "PyTorch", latencies, gflop, weights_m, shares, kernel_us, **tensors)


MODELS = {
    "resnet50": PublishedModel(
        NVIDIA,
        "ONNX Runtime with TensorRT, FP16",
        {
            "a100": {1: 2128, 2: 2194, 4: 2759, 8: 3895, 16: 5793, 32: 11193, 64: 25244, 128: 48086},
            "v100": {1: 2838, 2: 3350, 4: 4191, 8: 5979, 16: 9266, 32: 15664, 64: 38412, 128: 82159},
            "t4": {1: 3003, 2: 3998, 4: 5747, 8: 8998, 16: 15113, 32: 28353, 64: 53187, 128: 100155},
        },
        gflop=8.2,
        weights_m=25.6,
        kernel_us=37.0,
    ),
    "bert-large": _bert(
        246.0,
        335.0,
        {
            "a100": {1: 3400, 8: 15200, 16: 29100},
            "v100": {1: 7400, 8: 37700, 16: 70100},
            "t4": {1: 13700, 8: 113800, 16: 218000},
        },
    ),
    "bert-dist6l": _bert(
        35.0,
        66.0,
        {
            "a100": {1: 1000, 8: 3200, 16: 5500},
            "v100": {1: 1600, 8: 7000, 16: 13100},
            "t4": {1: 2200, 8: 17100, 16: 34100},
        },
    ),
    "bert-dist4l": _bert(
        4.3,
        14.5,
        {
            "a100": {1: 500, 8: 1400, 16: 2300},
            "v100": {1: 700, 8: 2600, 16: 4800},
            "t4": {1: 700, 8: 4500, 16: 9000},
        },
    ),
    "bert-pytorch": _pytorch(
        *((14489, 17512, 24190, 36529, 63797), (0.35, 0.35, 0.43, 0.52, 0.59), 22.5, 110.0), tokens=128
    ),
    "densenet121": _pytorch((11925, 12376, 11969, 12618, 12625), (0.38, 0.32, 0.37, 0.49, 0.73), 5.7, 8.0),
    "densenet169": _pytorch((17242, 17038, 16964, 17341, 17585), (0.35, 0.37, 0.39, 0.47, 0.69), 6.7, 14.1),
    "densenet201": _pytorch((20406, 19995, 20675, 20569, 20902), (0.38, 0.39, 0.36, 0.5, 0.71), 8.6, 20.0),
    "inceptionv3": _pytorch((8685, 8818, 9283, 9709, 9373), (0.36, 0.33, 0.34, 0.45, 0.67), 11.4, 27.2, side=299),
    "mobilenetv2": _pytorch((4643, 4783, 4870, 5136, 5377), (0.32, 0.3, 0.34, 0.48, 0.75), 0.6, 3.5, 15.0),
    "resnet50-pytorch": _pytorch((5107, 4700, 4871, 5000, 7236), (0.38, 0.38, 0.54, 0.76, 0.9), 8.2, 25.6, 37.0),
    "resnet101": _pytorch((8922, 8663, 8950, 9034, 10897), (0.34, 0.35, 0.5, 0.68, 0.9), 15.6, 44.5, 34.0),
    "resnet152": _pytorch((14267, 13707, 13653, 13470, 15301), (0.29, 0.34, 0.47, 0.65, 0.89), 23.0, 60.2),
    "vgg16": _pytorch((1509, 2112, 3327, 5492, 9927), (0.82, 0.85, 0.87, 0.92, 0.96), 30.9, 138.4),
    "vgg19": _pytorch((1788, 2483, 3900, 6215, 11513), (0.81, 0.84, 0.86, 0.94, 0.96), 39.3, 143.7),
}
"""ResNet-50 in PyTorch at batch 1 was slower than at 2, and its copies cost nothing: its u is that of batch 2.

Operations and weights: torchvision's table of models; of BERT from its layers. ParvaGPU does not say which BERT it ran,
nor on how many tokens: BERT-base and 128 are assumed.
"""
MULTIPLES = {"bert-base": ("bert-dist6l", 2)}
"""Models that nobody has published: so many times the layers of another one."""
