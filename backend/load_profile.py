"""A model's profile at load: its `profile.json` where that holds here, else measured briefly on the lane's core."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from backend.device.facts import device_name, device_peaks
from backend.engines.loading import is_plan, pinned_cores
from backend.engines.plan_facts import graph_of
from backend.engines.protocol import Array, Engine, TensorSpec
from backend.errors import EngineError
from backend.lanes import pin
from backend.model_config import ModelConfig
from backend.runtime_dir import runtime_dir
from backend.shape_group import shape_group
from predictor.workload import Load, ModelProfile
from profiler.brief import brief_profile
from profiler.feature_source import FeatureSource, feature_source
from profiler.host import sha256_of
from profiler.profile_file import NAME, Identity, ProfileFileError, mismatch, read_profile

_log = logging.getLogger("isochrone")
_GUESS = ModelProfile((1,), (Load(solo_ns=10_000_000, compute=0.5, l2=0.5, dram=0.2),))
"""Of a model that does not run on made-up inputs; its first batches tell."""


def profile_at_load(config: ModelConfig, engine: Engine) -> ModelProfile:
    """Solo latencies and features over batch sizes up to `max_batch_size`; never fails for want of a profile.

    Raises ConfigError where a GPU cannot be asked what it is.
    """
    return _stored_profile(config, engine) or _brief_profile(config, engine)


def profiled_group(config: ModelConfig, profile: ModelProfile) -> int | None:
    """The shape that it was measured with; None where it is a guess."""
    if profile is _GUESS:
        return None
    batching = config.max_batch_size > 0
    return shape_group(made_up_inputs(config.inputs, 1 if batching else None), batching=batching)


def identity_of(config: ModelConfig, engine: Engine) -> Identity:
    """What a profile of this model with this engine holds for.

    Raises OSError where the model file cannot be read, ConfigError where a GPU cannot be asked what it is.
    """
    return Identity(device_name(config.device_id), engine.identity, sha256_of(config.model_file))


def counted_features(
    config: ModelConfig, directory: Path, batch_sizes: Sequence[int], why: str | None = None
) -> FeatureSource:
    """From the model's graph; see `feature_source`. Raises ConfigError where a GPU cannot be asked what it is."""
    file = config.model_file
    graph = (graph_of(file) if is_plan(file) else None) or file
    return feature_source(graph, batch_sizes, partial(device_peaks, config.device_id, directory), why)


def _stored_profile(config: ModelConfig, engine: Engine) -> ModelProfile | None:
    """From the version directory; where it cannot be used, the log says why."""
    path = config.model_file.parent / NAME
    try:
        found = read_profile(path)
        if found is None:
            return None
        ends = (1, max(1, config.max_batch_size))  # sizes between are interpolated
        why = mismatch(path, found, identity_of(config, engine), ends)
    except ProfileFileError as error:
        why = str(error)
    except OSError as error:
        why = f"'{config.model_file}' cannot be read: {error.strerror}"
    if why is None:
        assert found is not None
        return found.profile()
    _log.warning("isochrone: model '%s': %s, so it is profiled briefly", config.name, why)
    return None


def _brief_profile(config: ModelConfig, engine: Engine) -> ModelProfile:
    try:
        with on_first_lane(config):
            brief = brief_profile(
                config.model_file,
                partial(timed_run, config, engine),
                config.max_batch_size,
                directory=runtime_dir(),
                device=device_name(config.device_id),
                engine=engine.identity,
                features=partial(counted_features, config, runtime_dir()),
            )
    except EngineError as error:
        _log.warning(
            "isochrone: model '%s' does not run on made-up inputs (%s), so its solo latency is a guess",
            config.name,
            error,
        )
        return _GUESS
    if brief.note:
        _log.warning("isochrone: model '%s': %s", config.name, brief.note)
    return brief.profile


def timed_run(config: ModelConfig, engine: Engine, batch_size: int) -> int:
    """Nanoseconds that the engine takes for one batch of made-up inputs. Raises EngineError."""
    feeds = made_up_inputs(config.inputs, batch_size if config.max_batch_size > 0 else None)
    names = [spec.name for spec in config.outputs]
    return engine.run(0, {name: [array] for name, array in feeds.items()}, names).exec_ns


@contextmanager
def on_first_lane(config: ModelConfig) -> Iterator[None]:
    """Keeps this thread on the core of lane 0, as in serving, where lanes are cores."""
    allowed = os.sched_getaffinity(0)
    try:
        if cores := pinned_cores(config):
            pin(cores[0])
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def made_up_inputs(specs: Sequence[TensorSpec], batch_size: int | None) -> dict[str, Array]:
    """Of the right shape, dynamic dimensions 1. Floats lie between 0 and 1, since a GPU draws less power on zeros, and
    so may run faster; the rest are zeros (ones would leave small vocabularies). The same in each call.

    batch_size: None where the model does not batch.
    """
    lead = () if batch_size is None else (batch_size,)
    random = np.random.default_rng(0)
    return {
        spec.name: _made_up(spec, (*lead, *(max(1, d) for d in spec.shape)), random)
        for spec in specs
        if not spec.optional
    }


def _made_up(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    datatype = spec.datatype.numpy
    if datatype.hasobject:
        return np.full(shape, "", dtype=np.object_)
    if datatype.kind == "f":
        return random.random(shape, np.float32).astype(datatype, copy=False)
    return np.zeros(shape, dtype=datatype)
