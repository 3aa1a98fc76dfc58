"""Models that `isochrone emulate` writes: published solo latencies, and by rule what nobody has published.

docs/explanation/emulated-gpu.md has the rules, and which figure of which model and GPU is published, interpolated or
scaled. So has `source` of every file that is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

from backend.engines.emulated.machines import MACHINES, busy_ratio
from backend.engines.emulated.published import MODELS, MULTIPLES, PublishedModel
from backend.engines.emulated.spec import DEVICES_MAX, SCHEMA
from backend.errors import ConfigError
from backend.simulation.gpu_law import KERNEL_US

BATCH_SIZES = (1, 2, 4, 8, 16)
BUSY_SHARES = 0.38, 0.94
"""u that is assumed at no throughput and at a model's largest: p10 and p90 of Gavel's jobs."""
WORK_EXPONENT = 0.7
"""Power of the batch size by which the work per kernel grows (Orion, batch 4 to 32)."""
_NEAREST = {"a100": ("v100", "t4"), "v100": ("a100", "t4"), "t4": ("v100", "a100"), "l4": ("t4", "v100", "a100")}
"""GPUs whose latencies are scaled for one without, the first first."""
_L2_SHARE = 0.4
_FP16_BYTES = 2


class SoloRun(NamedTuple):
    """A batch alone. origin: how its latency is known."""

    solo_us: float
    busy_share: float
    origin: str


def model_names() -> tuple[str, ...]:
    """Names of all models, on every GPU."""
    return tuple(sorted({*MODELS, *MULTIPLES}))


def emulated_model(gpus: Sequence[str], model: str, seed: int = 0) -> dict[str, Any]:
    """Content of a `model.emulated.json`, for an instance on each of these GPUs; one that is named twice is two.

    Raises ConfigError where a GPU or the model is unknown.
    """
    for gpu in gpus:
        if gpu not in MACHINES:
            raise ConfigError(
                f"--gpu is '{gpu}', but must be one of {', '.join(MACHINES)}; write a model.emulated.json of your own "
                "for another GPU"
            )
    if not 1 <= len(gpus) <= DEVICES_MAX:
        raise ConfigError(f"--gpu has {len(gpus)} GPUs, but must have 1 to {DEVICES_MAX}")
    if model not in model_names():
        raise ConfigError(f"--models has '{model}', but must have models out of {', '.join(model_names())}")
    published = _published(model)
    entries = [_on_device(gpu, gpus[:i].count(gpu), model, seed) for i, gpu in enumerate(gpus)]
    return {
        "schema": SCHEMA,
        "max_batch_size": BATCH_SIZES[-1],
        "inputs": [_input(published)],
        "outputs": [{"name": "output", "datatype": "TYPE_FP32", "shape": [768 if published.tokens else 1000]}],
        **(entries[0] if len(entries) == 1 else {"devices": entries}),
    }


def _on_device(gpu: str, ordinal: int, model: str, seed: int) -> dict[str, Any]:
    published, machine, runs = _published(model), MACHINES[gpu], solo_runs(gpu, model)
    return {
        "device": {
            "name": f"emulated-{gpu}-{ordinal}",
            "pcie_gb_per_s": machine.pcie[0],
            "copy_latency_us": machine.pcie[1],
            "boost_mhz": machine.boost_mhz,
            "seed": seed,
        },
        "batches": [_batch(gpu, published, size, run) for size, run in runs.items()],
        "source": _source(published, runs),
    }


def solo_runs(gpu: str, model: str) -> dict[int, SoloRun]:
    """Solo runs at each of `BATCH_SIZES`: published on that GPU, else scaled from the nearest one that has them."""
    published = _published(model)
    origin = gpu if gpu in published.solo_us else next(g for g in _NEAREST[gpu] if g in published.solo_us)
    known = published.solo_us[origin]
    busy_shares = published.busy_share or _assumed_busy_shares(known)
    return {
        size: scaled(
            SoloRun(
                _interpolated(known, size),
                _interpolated(busy_shares, size),
                _origin(model, size in known),
            ),
            origin,
            gpu,
        )
        for size in BATCH_SIZES
    }


def scaled(run: SoloRun, origin: str, gpu: str) -> SoloRun:
    """Solo run on another GPU: while kernels run, it takes `busy_ratio` times as long; the rest is the host's."""
    if origin == gpu:
        return run
    ratio = busy_ratio(origin, gpu)
    stretch = 1.0 - run.busy_share + run.busy_share * ratio
    return SoloRun(run.solo_us * stretch, run.busy_share * ratio / stretch, f"{run.origin}, scaled from {origin}")


def _published(model: str) -> PublishedModel:
    """The model as published, or so many times its part."""
    if model in MODELS:
        return MODELS[model]
    part, times = MULTIPLES[model]
    found = MODELS[part]
    solo_us = {gpu: {size: times * us for size, us in sizes.items()} for gpu, sizes in found.solo_us.items()}
    return replace(found, solo_us=solo_us, gflop=times * found.gflop, weights_m=times * found.weights_m)


def _origin(model: str, known: bool) -> str:
    origin = "published" if known else "interpolated"
    return origin if model in MODELS else f"{origin} as {MULTIPLES[model][1]} × {MULTIPLES[model][0]}"


def _assumed_busy_shares(solo_us: Mapping[int, int]) -> dict[int, float]:
    """u by size, from the throughput's share of the model's largest."""
    low, high = BUSY_SHARES
    throughputs = {size: size / us for size, us in solo_us.items()}
    largest = max(throughputs.values())
    return {size: low + (high - low) * throughput / largest for size, throughput in throughputs.items()}


def _interpolated(by_size: Mapping[int, float], size: int) -> float:
    """Value at a size, on the straight line between its neighbours."""
    if size in by_size:
        return by_size[size]
    below, above = next((a, b) for a, b in pairwise(sorted(by_size)) if a < size < b)
    return by_size[below] + (size - below) / (above - below) * (by_size[above] - by_size[below])


def _input(model: PublishedModel) -> dict[str, Any]:
    if model.tokens:
        return {"name": "input", "datatype": "TYPE_INT64", "shape": [model.tokens]}
    return {"name": "input", "datatype": "TYPE_FP32", "shape": [3, model.side, model.side]}


def _batch(gpu: str, model: PublishedModel, size: int, run: SoloRun) -> dict[str, Any]:
    machine = MACHINES[gpu]
    kernel_us = (model.kernel_us or KERNEL_US) * busy_ratio("v100", gpu)
    features = {
        "compute": model.gflop * size / (run.solo_us * machine.fp16_tflops * 1e-3),
        "l2": _L2_SHARE * run.busy_share,
        "dram": _FP16_BYTES * model.weights_m / (run.solo_us * machine.memory_gb_per_s * 1e-3),
    }
    return {
        "batch_size": size,
        "solo_us": round(run.solo_us),
        "busy_share": round(run.busy_share, 3),
        "work_per_kernel": round(kernel_us / KERNEL_US * (size / model.kernel_batch) ** WORK_EXPONENT, 3),
        "features": {name: round(min(1.0, share), 3) for name, share in features.items()},
    }


def _source(model: PublishedModel, runs: Mapping[int, SoloRun]) -> str:
    sizes: dict[str, list[str]] = {}
    for size, run in runs.items():
        sizes.setdefault(run.origin, []).append(str(size))
    known = "; ".join(f"{origin} (batch {', '.join(found)})" for origin, found in sizes.items())
    busy_share = "fitted to published copies" if model.busy_share else "assumed"
    work = "from published kernel times" if model.kernel_us else "assumed"
    return (
        f"solo_us: {model.source}, {model.engine}: {known}; busy_share {busy_share}; work_per_kernel {work}; "
        "features derived"
    )
