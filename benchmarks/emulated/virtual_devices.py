"""Several emulated GPUs in one virtual time, each with its scheduler, and who picks a request's GPU. EMULATED.

The choice is the served one, by what each device's scheduler tells; here it answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from backend.engines.emulated.catalogue import emulated_model
from backend.engines.emulated.spec import EmulatedSpec
from backend.load.arrivals import Arrival
from backend.load.outcomes import Outcome
from backend.model_process.devices.forecast import DeviceForecast, choose
from backend.model_process.placement import GPU_LANES
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Ping
from backend.scheduler_process.device_snapshot import DeviceDescription
from backend.simulation.gpu_device import SimulatedGpu
from backend.simulation.simulator import DeviceRun, SimulatedModel
from backend.simulation.virtual_gpu import VirtualGpu

MODELS = ("bert-base", "bert-large", "bert-dist6l")
PREDICTED, TURNS, SPEED = "predicted", "by turns", "by speed"
OVERHEAD_NS = 150_000
"""Time of a lane beside each execution and its copies."""
_ROW_BYTES_IN, _ROW_BYTES_OUT = 1024, 3072
_BATCH_MAX = 8
"""Rows that batches grow to by default."""
Pick = Callable[[Arrival, int], str]
"""(request, time in nanoseconds) → GPU."""


def model_content(gpus: Sequence[str], model: str) -> dict[str, Any]:
    """The specification of a model on these GPUs. Pairs have no factors, as these follow from the models' names."""
    content = emulated_model(gpus, model)
    for entry in content.get("devices", (content,)):
        entry["device"]["pair_sd"] = 0.0
    return content


def on_gpu(gpu: str) -> dict[str, str]:
    """Folder of each model that runs on one GPU only."""
    return {model: f"{model}-{gpu}" for model in MODELS}


def picked(plan: Sequence[Arrival], weights: Mapping[str, float]) -> list[Arrival]:
    """The plan with a GPU for each request: of each model's requests every GPU has its share, spread evenly."""
    total, credit = sum(weights.values()), {(model, gpu): 0.0 for model in MODELS for gpu in weights}
    found = []
    for arrival in plan:
        for gpu, weight in weights.items():
            credit[arrival.model, gpu] += weight / total
        chosen = max(weights, key=lambda gpu, model=arrival.model: credit[model, gpu])  # type: ignore[misc]
        credit[arrival.model, chosen] -= 1.0
        found.append(replace(arrival, model=on_gpu(chosen)[arrival.model]))
    return found


def in_virtual_time(
    rates: Mapping[str, float], plan: Sequence[Arrival], dilation: float
) -> Iterator[tuple[str, list[Outcome]]]:
    """Outcomes of the plan by who picks, in real time as it would be dilated. rates: each GPU's capacity."""
    own_time = [replace(a, at_s=a.at_s / dilation, slo_ms=a.slo_ms / dilation) for a in plan]
    picks: dict[str, list[Arrival] | None] = {
        TURNS: picked(own_time, dict.fromkeys(rates, 1.0)),
        SPEED: picked(own_time, rates),
        PREDICTED: None,
    }
    for who, given in picks.items():
        devices = {gpu: _Device(gpu) for gpu in rates}
        for i, arrival in enumerate(own_time):
            now_ns = round(arrival.at_s * 1e9)
            for device in devices.values():
                device.run.until(now_ns)
            gpu = _predicted(devices, arrival, now_ns) if given is None else given[i].model.rpartition("-")[2]
            devices[gpu].run.arrive(arrival)
            for device in devices.values():
                device.ask(arrival.model, now_ns)
        for device in devices.values():
            device.run.until(None)
        yield who, [_dilated(o, dilation) for device in devices.values() for o in device.run.ran.outcomes()]


def _predicted(devices: Mapping[str, _Device], arrival: Arrival, now_ns: int) -> str:
    names = list(devices)
    for device in devices.values():
        device.ask(arrival.model, now_ns, only_if_stale=True)
    forecasts = [device.forecasts[arrival.model] for device in devices.values()]
    chosen = choose([forecast.end_ns(1, now_ns) for forecast in forecasts], [False] * len(names), 0)
    forecasts[chosen].send(1, now_ns)
    return names[chosen]


def _dilated(outcome: Outcome, dilation: float) -> Outcome:
    times = (outcome.intended_s, outcome.sent_s, outcome.answered_s)
    intended_s, sent_s, answered_s = (dilation * time_s for time_s in times)
    return replace(
        outcome, intended_s=intended_s, sent_s=sent_s, answered_s=answered_s, slo_ms=dilation * outcome.slo_ms
    )


class _Device:
    """One GPU, its scheduler, and what each model's process knows of it."""

    def __init__(self, gpu: str) -> None:
        specs = {model: msgspec.convert(model_content([gpu], model), EmulatedSpec) for model in MODELS}
        device = specs[MODELS[0]].device
        self._scheduler = Scheduler(GPU_LANES)
        self._description = DeviceDescription(device.name, "benchmark")
        models = [
            SimulatedModel(name, spec.profile, _BATCH_MAX, bytes_in=_ROW_BYTES_IN, bytes_out=_ROW_BYTES_OUT)
            for name, spec in specs.items()
        ]
        simulated = SimulatedGpu(
            VirtualGpu(device.law, device.copy_engines), lambda model, rows: specs[model].demand(model, rows)
        )
        self.run = DeviceRun(models, self._scheduler, simulated, OVERHEAD_NS)
        self.forecasts = {
            name: DeviceForecast(
                [(size, spec.profile.at(size).solo_ns) for size in spec.profile.batch_sizes], GPU_LANES
            )
            for name, spec in specs.items()
        }

    def ask(self, model: str, now_ns: int, *, only_if_stale: bool = False) -> None:
        """Ask as an instance does, and take the answer over."""
        forecast = self.forecasts[model]
        if only_if_stale and not forecast.is_stale(now_ns):
            return
        asks = forecast.ask(now_ns)
        if asks is not None:
            source = self._scheduler.sources[self.run.source_of(model)]
            forecast.tell(self._description.load(self._scheduler, source, Ping(asks), now_ns))
