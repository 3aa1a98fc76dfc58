"""A model's profile at load: measured briefly on the lane's core, before the model takes traffic."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence

import numpy as np

from backend.engines.loading import pinned_cores
from backend.engines.protocol import Array, Engine, TensorSpec
from backend.errors import EngineError
from backend.lanes import pin
from backend.model_config import ModelConfig
from backend.scheduler.runtime_dir import runtime_dir
from predictor.workload import Load, ModelProfile
from profiler.brief import brief_profile

_log = logging.getLogger("isochrone")
_UNKNOWN = Load(solo_ns=10_000_000, compute=0.5, l2=0.5, dram=0.2)
"""Of a model that does not run on made-up inputs: a guess, corrected by what its batches then take."""


def profile_at_load(config: ModelConfig, engine: Engine) -> ModelProfile:
    """Solo latencies and features over batch sizes up to `max_batch_size`; never fails for want of a profile."""
    names = [spec.name for spec in config.outputs]

    def run(batch_size: int) -> int:
        feeds = made_up_inputs(config.inputs, batch_size if config.max_batch_size > 0 else None)
        started_ns = time.perf_counter_ns()
        engine.run(0, feeds, names)
        return time.perf_counter_ns() - started_ns

    allowed = os.sched_getaffinity(0)
    cores = pinned_cores(config)
    try:
        if cores:
            pin(cores[0])
        brief = brief_profile(
            config.model_file, run, config.max_batch_size, directory=runtime_dir(), engine=engine.identity
        )
    except EngineError as error:
        _log.warning(
            "isochrone: model '%s' does not run on made-up inputs (%s), so its solo latency is a guess",
            config.name,
            error,
        )
        return ModelProfile((1,), (_UNKNOWN,))
    finally:
        os.sched_setaffinity(0, allowed)
    if brief.note:
        _log.warning("isochrone: model '%s': %s", config.name, brief.note)
    return brief.profile


def made_up_inputs(specs: Sequence[TensorSpec], batch_size: int | None) -> dict[str, Array]:
    """Zeros of the right shape (ones for integers' sake would leave small vocabularies); dynamic dimensions are 1.

    batch_size: None where the model does not batch.
    """
    lead = () if batch_size is None else (batch_size,)
    return {spec.name: _zeros(spec, (*lead, *(max(1, d) for d in spec.shape))) for spec in specs if not spec.optional}


def _zeros(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    if spec.datatype.numpy.hasobject:
        return np.full(shape, "", dtype=np.object_)
    return np.zeros(shape, dtype=spec.datatype.numpy)
