"""The same turns in virtual time: the same requests, device, profiles, lanes and scheduler, all dilated. EMULATED."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from backend.scheduler.device_state import DeviceState
from backend.scheduler.forecast.launch_forecast import Choice
from backend.scheduler.policy import Policy
from backend.scheduler.source import Source
from backend.simulation.contention import LinearContention
from backend.simulation.fixed_predictors import Unaware
from backend.simulation.simulator import simulate
from benchmarks.emulated.dilated import dilated_gpu, dilated_profile, dilated_requests
from benchmarks.gpu_emulated.drawn_gpu import COPIES, OVERHEAD_NS, drawn_gpu
from benchmarks.gpu_emulated.plan import STOCK_SERVED, TWO_CLASSES, Served
from benchmarks.gpu_emulated.runs import outcomes_of
from benchmarks.gpu_emulated.served.turns import Turn, loads_kept, turn_plan
from benchmarks.rivals import RIVALS, Rival


class InstancePerModel(Policy):
    """In order of arrival, but a model whose batch runs waits, as stock Triton's do that have one instance each."""

    def choose(self, sources: Mapping[int, Source], device: DeviceState, lane: int, now_ns: int) -> Choice | None:
        busy = {source for source, _ in device.running}
        free = {i: source for i, source in sources.items() if i not in busy}
        return super().choose(free, device, lane, now_ns) if free else None


_STOCK = Rival("dynamic batching, an instance per model", lambda *_: Unaware(), InstancePerModel, in_order=True)


def twin_turn(served: Served, rival: str, repeat: int, chance: int) -> Turn:
    """Simulate a turn. chance: of noise and tails."""
    drawn = drawn_gpu(served.draw, TWO_CLASSES.models)
    under, lanes = (_STOCK, len(drawn.models)) if rival == STOCK_SERVED else (RIVALS[rival], served.lanes)
    plan = dilated_requests(turn_plan(drawn, served, repeat), served.dilation)
    models = [replace(m, profile=dilated_profile(m.profile, served.dilation)) for m in under.models(drawn.simulated())]
    gpu = dilated_gpu(drawn.law, COPIES, drawn.solo_and_demand, served.dilation, Random(chance))
    scheduler = under.scheduler(lanes, LinearContention(), ())
    ran = simulate(models, under.plan(plan), scheduler, gpu, round(served.dilation * OVERHEAD_NS))
    return Turn(rival, repeat, loads_kept(served, outcomes_of(plan, ran)))
