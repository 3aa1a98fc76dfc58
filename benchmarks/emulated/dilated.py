"""An emulated GPU with dilated time in virtual time, as a server has it under ISOCHRONE_EMULATED_TIME. EMULATED."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import msgspec

from backend.load.arrivals import Arrival
from backend.simulation.gpu_device import Demands, SimulatedGpu
from backend.simulation.gpu_law import GpuLaw, KernelDemand
from backend.simulation.virtual_gpu import CopyEngines, VirtualGpu
from predictor.workload import ModelProfile


def dilated_requests(plan: Iterable[Arrival], dilation: float) -> list[Arrival]:
    """Requests in real time. plan: in the device's time."""
    return [replace(a, at_s=a.at_s * dilation, slo_ms=a.slo_ms * dilation) for a in plan]


def dilated_profile(profile: ModelProfile, dilation: float) -> ModelProfile:
    """Solo latencies as a server measures them; features and kernel times stay."""
    loads = (msgspec.structs.replace(load, solo_ns=round(dilation * load.solo_ns)) for load in profile.loads)
    return ModelProfile(profile.batch_sizes, tuple(loads))


def dilated_gpu(law: GpuLaw, copies: CopyEngines, demands: Demands, dilation: float, chance: Random) -> SimulatedGpu:
    """A device on which everything takes `dilation` times as long. chance: of noise and tails."""

    def demand(model: str, rows: int) -> tuple[float, KernelDemand]:
        solo_ns, found = demands(model, rows)
        return dilation * solo_ns, found

    slow = CopyEngines(copies.bytes_per_ns / dilation, copies.latency_ns * dilation)
    return SimulatedGpu(VirtualGpu(law, slow, chance), demand)
