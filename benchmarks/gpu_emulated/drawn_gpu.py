"""An emulated A100 and its models, drawn: what no data tells of a model, as it is spread over those it tells of.

Emulated: the law of `backend.simulation.gpu_law`, no GPU. A draw is reproducible from its number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import log

import numpy as np

from backend.simulation.gpu_device import SimulatedGpu
from backend.simulation.gpu_law import GpuEffects, GpuLaw, KernelDemand
from backend.simulation.simulator import SimulatedModel
from backend.simulation.virtual_gpu import CopyEngines, VirtualGpu
from benchmarks.emulated.draws import draw_demand
from predictor.workload import Load, ModelProfile

A100_EFFECTS = GpuEffects()
"""Noise, tails and launch gaps as `isochrone emulate` has them; what the models draw is unknown, so the clock stays."""
BATCH_MAX = 16
PROFILED = (1, 2, 4, 8, 16)
COPIES = CopyEngines(bytes_per_ns=25.0, latency_ns=49_000.0)
"""PCIe gen 4, as `isochrone emulate --gpu a100` has it."""
ROW_BYTES_IN, ROW_BYTES_OUT = 602_112, 4000
"""An image of 224 × 224, and 1,000 scores."""
OVERHEAD_NS = 150_000
"""Time of a lane beside each execution and its copies."""
_SOLO_MS = (2.0, 12.0)
"""Range of a batch of one, even in its logarithm."""
_PER_ROW = (0.1, 0.5)
"""Range of what a further row adds to a batch of one, as a share of it."""
_BUSY_OF_ONE = (0.45, 0.9)
"""Range of u of a batch of one over that of the largest batch (ParvaGPU's eleven models: 0.45 to 0.89)."""
_ANCHOR_SIZE, _WORK_GROWTH = 4, 0.7
"""w is known at a batch of four, and grows with size^0.7."""


@dataclass(frozen=True)
class DrawnModel:
    """A model by its constants. per_row: of solo_1_ns; busy_share: of a batch of one and of the largest; work: w of a
    batch of four; features: compute, l2 and dram over u.
    """

    name: str
    solo_1_ns: float
    per_row: float
    busy_share: tuple[float, float]
    work: float
    features: tuple[float, float, float]

    def solo_ns(self, rows: int) -> int:
        """Latency alone on the device, without copies."""
        return round(self.solo_1_ns * (1.0 - self.per_row + self.per_row * rows))

    def demand(self, rows: int) -> KernelDemand:
        """The law's u and w of a batch."""
        one, most = self.busy_share
        busy_share = one + (most - one) * log(rows) / log(BATCH_MAX)
        return KernelDemand(self.name, rows, busy_share, self.work * (rows / _ANCHOR_SIZE) ** _WORK_GROWTH)

    def load(self, rows: int) -> Load:
        """Solo latency and shares, as a profile has them; its work per kernel is not told."""
        busy_share = self.demand(rows).busy_share
        compute, l2, dram = (busy_share * share for share in self.features)
        return Load(self.solo_ns(rows), compute, l2, dram)

    def simulated(self) -> SimulatedModel:
        """The model as its process joins a scheduler: `on_miss: reject`."""
        profile = ModelProfile(PROFILED, tuple(self.load(rows) for rows in PROFILED))
        return SimulatedModel(self.name, profile, BATCH_MAX, True, True, ROW_BYTES_IN, ROW_BYTES_OUT)


@dataclass(frozen=True)
class DrawnGpu:
    """A device and what runs on it."""

    law: GpuLaw
    models: tuple[DrawnModel, ...]

    @property
    def mean_law(self) -> GpuLaw:
        """The law without chance: what can be known of a batch before it runs."""
        return replace(self.law, effects=replace(self.law.effects, noise_sd=0.0, tail_sd=0.0))

    @cached_property
    def by_name(self) -> dict[str, DrawnModel]:
        return {model.name: model for model in self.models}

    def device(self) -> SimulatedGpu:
        """A new one, on which nothing runs."""
        return SimulatedGpu(VirtualGpu(self.law, COPIES), self.solo_and_demand)

    def solo_and_demand(self, model: str, rows: int) -> tuple[float, KernelDemand]:
        """Solo latency in nanoseconds and demand of a batch."""
        found = self.by_name[model]
        return float(found.solo_ns(rows)), found.demand(rows)

    def simulated(self) -> list[SimulatedModel]:
        return [model.simulated() for model in self.models]


@cache
def drawn_gpu(draw: int, models: int, effects: GpuEffects = A100_EFFECTS) -> DrawnGpu:
    """Draw number `draw` of so many models."""
    stream = np.random.default_rng((draw, models))
    return DrawnGpu(GpuLaw(seed=draw, effects=effects), tuple(_model(stream, f"m{i}") for i in range(models)))


def _model(stream: np.random.Generator, name: str) -> DrawnModel:
    low, high = np.log(_SOLO_MS)
    solo_1_ns = 1e6 * float(np.exp(stream.uniform(low, high)))
    per_row = float(stream.uniform(*_PER_ROW))
    demand = draw_demand(stream, name)
    busy_share = demand.busy_share * float(stream.uniform(*_BUSY_OF_ONE)), demand.busy_share
    compute, l2, dram = (
        float(stream.uniform(0.6, 1.0)),
        float(stream.uniform(0.1, 0.9)),
        float(stream.uniform(0.1, 0.9)),
    )
    return DrawnModel(name, solo_1_ns, per_row, busy_share, demand.work_per_kernel, (compute, l2, dram))
