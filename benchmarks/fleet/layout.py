"""A fleet by its seed: emulated GPUs of four types, models, their rates and deadlines, and which device holds which.

Emulated: the law of `backend.simulation.gpu_law` and the figures of `isochrone emulate`, no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import ceil, exp, log, prod
from random import Random

import msgspec
import numpy as np

from backend.engines.emulated.catalogue import emulated_model, model_names
from backend.engines.emulated.machines import MACHINES
from backend.engines.emulated.spec import EmulatedSpec
from backend.fleet.snapshot import MachineFacts
from backend.load.arrivals import Arrival, Traffic, arrivals
from backend.simulation.gpu_device import SimulatedGpu
from backend.simulation.gpu_law import GpuLaw, KernelDemand
from backend.simulation.simulator import SimulatedModel
from backend.simulation.virtual_gpu import VirtualGpu
from benchmarks.harness.loads import SLO_FACTORS

GPUS = tuple(MACHINES)
MEMORY_GB = {"a100": 80, "v100": 32, "t4": 16, "l4": 24}
BATCH_MAX = 16
OVERHEAD_NS = 150_000
"""Time of a lane beside each execution and its copies."""
_LAYERS = (6.0, 24.0)
"""Range of how many times the layers of a published model a model has, even in its logarithm."""
_BUSY_SHARE, _LOG_WORK_SD = (0.8, 1.2), 0.3
"""Spread of a model's u and w around those of the published one: factors, and standard deviation of ln w."""
_ZIPF = 1.0
"""Rates fall as rank to this power."""
_REPLICAS_MIN, _REPLICAS_MORE = 3, 1.5
"""Devices that hold a model: at least so many, and so many times those that its load of 1 would keep busy."""
_FULL_BATCH = 1
"""Load 1 would keep all GPUs' kernels busy all the time with batches of so many."""
_SLACK = 1.05


@dataclass(frozen=True)
class FleetModel:
    """A model. layers: times those of the published one; busy_share, work: factors of its u and w; share: of all
    requests; slo: deadline over solo latency; priority: its class.
    """

    name: str
    published: str
    layers: float
    busy_share: float
    work: float
    share: float
    slo: float
    priority: int

    @cache  # noqa: B019 - a layout lives as long as its run
    def spec(self, gpu: str) -> EmulatedSpec:
        """Its file on this GPU."""
        found = msgspec.convert(emulated_model([gpu], self.published), EmulatedSpec)
        batches = tuple(
            msgspec.structs.replace(
                batch,
                solo_us=batch.solo_us * self.layers,
                busy_share=min(0.99, batch.busy_share * self.busy_share),
                work_per_kernel=batch.work_per_kernel * self.work,
            )
            for batch in found.batches
        )
        return msgspec.structs.replace(found, batches=batches)

    @cache  # noqa: B019
    def demand(self, gpu: str, rows: int) -> tuple[float, KernelDemand]:
        """Solo latency in nanoseconds and demand of a batch."""
        return self.spec(gpu).demand(self.name, rows)

    def solo_ns(self, gpu: str, rows: int = 1) -> float:
        """Latency alone on this GPU, without copies."""
        return self.demand(gpu, rows)[0]

    def full_speed(self, gpu: str) -> float:
        """Rows per second that keep this GPU's kernels busy, in batches of `_FULL_BATCH`."""
        solo_ns, demand = self.demand(gpu, _FULL_BATCH)
        return _FULL_BATCH * 1e9 / (solo_ns * demand.busy_share)

    @property
    def slo_ms(self) -> float:
        """Deadline from arrival to answer, from the mean of its solo latencies over the types."""
        return _SLACK * self.slo * sum(self.solo_ns(gpu) for gpu in GPUS) / len(GPUS) / 1e6

    @cache  # noqa: B019
    def simulated(self, gpu: str, rejects: bool) -> SimulatedModel:
        """The model as its process joins a scheduler."""
        spec = self.spec(gpu)
        row_bytes = sum(_BYTES[t.datatype] * prod(t.shape) for t in spec.inputs)
        return SimulatedModel(self.name, spec.profile, BATCH_MAX, True, rejects, row_bytes, 4000)


_BYTES = {"TYPE_FP32": 4, "TYPE_INT64": 8}


@dataclass(frozen=True)
class FleetLayout:
    """gpus: type by device; holders: devices by model, in the models' order."""

    seed: int
    gpus: tuple[str, ...]
    models: tuple[FleetModel, ...]
    holders: tuple[tuple[int, ...], ...]

    @cached_property
    def by_name(self) -> dict[str, FleetModel]:
        return {model.name: model for model in self.models}

    @cached_property
    def holders_of(self) -> dict[str, tuple[int, ...]]:
        return {model.name: held for model, held in zip(self.models, self.holders, strict=True)}

    def held_by(self, device: int) -> list[FleetModel]:
        """Models that a device holds."""
        return [model for model, held in zip(self.models, self.holders, strict=True) if device in held]

    def law(self, device: int) -> GpuLaw:
        """Its law: devices of one type have the same hidden factors."""
        gpu = self.gpus[device]
        spec = self.models[0].spec(gpu).device
        return msgspec.structs.replace(spec, seed=len(GPUS) * self.seed + GPUS.index(gpu)).law

    def mean_law(self, device: int) -> GpuLaw:
        """The law without chance: what can be known of a batch before it runs."""
        law = self.law(device)
        return replace(law, effects=replace(law.effects, noise_sd=0.0, tail_sd=0.0))

    def device(self, device: int) -> SimulatedGpu:
        """A new GPU, on which nothing runs."""
        gpu, models = self.gpus[device], self.by_name
        copies = self.models[0].spec(gpu).device.copy_engines
        virtual = VirtualGpu(self.law(device), copies, Random(f"{self.seed} {device}"))
        return SimulatedGpu(virtual, lambda model, rows: models[model].demand(gpu, rows))

    def machine(self, device: int) -> MachineFacts:
        """The hardware, as a snapshot names it."""
        gpu = self.gpus[device]
        facts = MACHINES[gpu]
        return MachineFacts(
            facts.product, True, facts.fp16_tflops, facts.memory_gb_per_s, MEMORY_GB[gpu] * 10**9, facts.multiprocessors
        )

    @cached_property
    def full_rate_per_s(self) -> float:
        """Requests per second of load 1: each model's kernels, spread over its holders as they are fast, keep as many
        devices busy as there are.
        """
        return len(self.gpus) / sum(
            model.share / mean_speed(model, [self.gpus[d] for d in held])
            for model, held in zip(self.models, self.holders, strict=True)
        )

    def requests(self, load: float, seconds: float, process: str) -> tuple[Arrival, ...]:
        """Every request at this load, the same for each router. process: of `backend.load.arrivals`."""
        rate_per_s = load * self.full_rate_per_s
        traffic = [Traffic(m.name, rate_per_s * m.share, m.slo_ms, m.priority) for m in self.models]
        return arrivals(traffic, seconds, self.seed, process)


def mean_speed(model: FleetModel, gpus: Sequence[str]) -> float:
    """Mean rows per second over these GPUs, at which each keeps its kernels busy."""
    return sum(model.full_speed(gpu) for gpu in gpus) / len(gpus)


@cache
def fleet_layout(seed: int, devices: int, models: int) -> FleetLayout:
    """Layout number `seed` of so many devices, the types by turns, and models."""
    stream = np.random.default_rng((seed, devices, models))
    gpus = tuple(GPUS[i % len(GPUS)] for i in range(devices))
    found = _models(stream, models)
    slots: list[list[str]] = [[] for _ in gpus]
    held: dict[str, list[int]] = {}
    wanted = _replicas(found, gpus)
    for model in sorted(found, key=lambda m: -wanted[m.name]):
        order = sorted(range(devices), key=lambda d: (len(slots[d]), stream.random()))
        held[model.name] = sorted(order[: wanted[model.name]])
        for device in held[model.name]:
            slots[device].append(model.name)
    return FleetLayout(seed, gpus, found, tuple(tuple(held[m.name]) for m in found))


def _models(stream: np.random.Generator, count: int) -> tuple[FleetModel, ...]:
    """Models with heavy-tailed rates, in no order of them; deadlines and classes by turns over the ranks."""
    shares = np.arange(1.0, count + 1.0) ** -_ZIPF
    shares /= shares.sum()
    published = model_names()
    found = []
    for rank in range(count):
        base = published[int(stream.integers(len(published)))]
        layers = exp(stream.uniform(log(_LAYERS[0]), log(_LAYERS[1])))
        busy_share, work = stream.uniform(*_BUSY_SHARE), exp(_LOG_WORK_SD * stream.standard_normal())
        slo, priority = SLO_FACTORS[rank % len(SLO_FACTORS)], 1 + rank // len(SLO_FACTORS) % 2
        figures = float(layers), float(busy_share), float(work), float(shares[rank])
        found.append(FleetModel(f"m{rank}-{base}", base, *figures, slo, priority))
    return tuple(found)


def _replicas(models: Sequence[FleetModel], gpus: Sequence[str]) -> dict[str, int]:
    """Number of devices that hold each model."""
    busy = {m.name: m.share / mean_speed(m, gpus) for m in models}
    scale = len(gpus) / sum(busy.values())
    return {
        name: min(len(gpus), max(_REPLICAS_MIN, ceil(_REPLICAS_MORE * scale * each))) for name, each in busy.items()
    }
