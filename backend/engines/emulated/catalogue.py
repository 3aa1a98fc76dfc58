"""Published solo latencies of models on GPUs, from which `isochrone emulate` writes models of an emulated one.

Measured, by others, on a whole A100 (ParvaGPU, data/parvagpu with its licence): `solo_us`, batch size over the
throughput of one process, and `busy_share`, fitted to the slowdowns beside one to four copies. Assumed: work per kernel
from mean kernel times at batch 4 (Orion, a V100) over 65 µs, 1 where there is none, growing with size^0.7; features;
the times of copies; the length of BERT's inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.engines.emulated.spec import SCHEMA
from backend.errors import ConfigError

BATCH_SIZES = (1, 2, 4, 8)
KERNEL_US = {"resnet50": 37.0, "mobilenetv2": 15.0, "resnet101": 34.0}
"""Mean kernel time at batch 4 (Orion)."""
_WORK_1_US = 65.0
_GROWTH = 0.7
_BERT_TOKENS = 128
_PCIE_GEN_4 = {"pcie_gb_per_s": 25.0, "copy_latency_us": 49.0}


@dataclass(frozen=True)
class MeasuredModel:
    """Figures per batch size, one for each of `BATCH_SIZES`."""

    solo_us: tuple[int, int, int, int]
    busy_share: tuple[float, float, float, float]


A100 = {
    "bert": MeasuredModel((14489, 17512, 24190, 36529), (0.35, 0.35, 0.43, 0.52)),
    "densenet121": MeasuredModel((11925, 12376, 11969, 12618), (0.38, 0.32, 0.37, 0.49)),
    "densenet169": MeasuredModel((17242, 17038, 16964, 17341), (0.35, 0.37, 0.39, 0.47)),
    "densenet201": MeasuredModel((20406, 19995, 20675, 20569), (0.38, 0.39, 0.36, 0.5)),
    "inceptionv3": MeasuredModel((8685, 8818, 9283, 9709), (0.36, 0.33, 0.34, 0.45)),
    "mobilenetv2": MeasuredModel((4643, 4783, 4870, 5136), (0.32, 0.3, 0.34, 0.48)),
    "resnet101": MeasuredModel((8922, 8663, 8950, 9034), (0.34, 0.35, 0.5, 0.68)),
    "resnet152": MeasuredModel((14267, 13707, 13653, 13470), (0.29, 0.34, 0.47, 0.65)),
    "resnet50": MeasuredModel((5107, 4700, 4871, 5000), (0.38, 0.38, 0.54, 0.76)),
    "vgg16": MeasuredModel((1509, 2112, 3327, 5492), (0.82, 0.85, 0.87, 0.92)),
    "vgg19": MeasuredModel((1788, 2483, 3900, 6215), (0.81, 0.84, 0.86, 0.94)),
}
"""ResNet-50 at batch 1 was slower than at 2, and its copies cost nothing: its u is that of batch 2."""
GPUS = {"a100": A100}


def emulated_model(gpu: str, model: str, seed: int = 0) -> dict[str, Any]:
    """Content of a `model.emulated.json`. Raises ConfigError where there is no latency of that GPU or model."""
    models = GPUS.get(gpu)
    if models is None:
        raise ConfigError(
            f"--gpu is '{gpu}', of which no latencies are known here; there are {', '.join(GPUS)}. Write a "
            "model.emulated.json of your own for another GPU"
        )
    found = models.get(model)
    if found is None:
        raise ConfigError(f"--models has '{model}', but of {gpu} there are {', '.join(models)}")
    return {
        "schema": SCHEMA,
        "device": {"name": f"emulated-{gpu}-0", **_PCIE_GEN_4, "seed": seed},
        "max_batch_size": BATCH_SIZES[-1],
        "inputs": [_input(model)],
        "outputs": [{"name": "output", "datatype": "TYPE_FP32", "shape": [768 if model == "bert" else 1000]}],
        "batches": [_batch(model, *entry) for entry in zip(BATCH_SIZES, found.solo_us, found.busy_share, strict=True)],
        "source": f"solo_us, busy_share: ParvaGPU, {gpu}; work_per_kernel, features, copies: assumed",
    }


def _input(model: str) -> dict[str, Any]:
    if model == "bert":
        return {"name": "input", "datatype": "TYPE_INT64", "shape": [_BERT_TOKENS]}
    side = 299 if model == "inceptionv3" else 224
    return {"name": "input", "datatype": "TYPE_FP32", "shape": [3, side, side]}


def _batch(model: str, size: int, solo_us: int, busy_share: float) -> dict[str, Any]:
    work = KERNEL_US.get(model, _WORK_1_US) / _WORK_1_US * (size / 4) ** _GROWTH
    features = {"compute": 0.6 * busy_share, "l2": 0.4 * busy_share, "dram": 0.3 * busy_share}
    return {
        "batch_size": size,
        "solo_us": solo_us,
        "busy_share": busy_share,
        "work_per_kernel": round(work, 3),
        "features": {name: round(share, 3) for name, share in features.items()},
    }
