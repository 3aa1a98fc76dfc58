"""Joins a device's scheduler while a model loads: what the load launches is of the lowest class."""

from __future__ import annotations

from collections.abc import Sequence

from backend.config.model_config import EngineConfig
from backend.errors import IsochroneError
from backend.model_process.dispatcher import Dispatcher, Runner
from backend.model_process.metrics import Metrics
from backend.model_process.placement import lanes_of, pinned_cores, preemptible_lanes
from backend.scheduler.messages import PROTOCOL, Join
from predictor.workload import Load, ModelProfile

LOWEST_CLASS, NEXT_CLASS = 1_000, 1
"""Below any class that is in use; and the one of runs that have waited in vain for too long."""
PATIENCE_S = 10.0
"""Time that all launches of a kind together may wait at the lowest class."""


def join_to_load(config: EngineConfig, row_ns: int, sizes: Sequence[int], runner: Runner) -> Dispatcher | None:
    """Join with a guess of what a row takes, None where no scheduler is to be had."""
    guess = ModelProfile(tuple(sizes), tuple(Load(solo_ns=row_ns * n, compute=0.5, l2=0.5, dram=0.2) for n in sizes))
    join = Join(
        protocol=PROTOCOL,
        model=config.name,
        version=config.version,
        max_batch_size=0,
        lanes=config.parameters.device_lanes,
        profile=guess,
        preemptible_lanes=preemptible_lanes(config),
        profiled_group=None,
        loading=True,
    )
    try:
        return Dispatcher(config.device, lanes_of(config), join, runner, Metrics(), pinned_cores(config))
    except IsochroneError:
        return None  # what serves will tell
