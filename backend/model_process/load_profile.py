"""A model's profile at load: its `profile.json` where that holds here, else measured briefly on the lane's core."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from backend.config.model_config import ModelConfig
from backend.device.facts import device_name, device_peaks
from backend.engines.emulated.features import SpecifiedFeatures
from backend.engines.emulated.spec import read_spec
from backend.engines.loading import is_plan
from backend.engines.protocol import Engine
from backend.engines.tensorrt.plan_facts import graph_of
from backend.errors import EngineError
from backend.linux.cpu_topology import pin_thread
from backend.linux.loading_priority import LOADING
from backend.model_process.batch import group_of
from backend.model_process.placement import pinned_cores
from backend.runtime_dir import runtime_dir
from backend.tensors import Array
from backend.trial.messages import SyntheticInputs, Trial
from backend.trial.synthetic_inputs import arrays
from predictor.workload import Load, ModelProfile
from profiler.brief import Budget, brief_profile
from profiler.child import Attend
from profiler.feature_source import FeatureSource, feature_source
from profiler.host import sha256_of
from profiler.profile_file import NAME, ProfileFile, ProfileFileError, ProfileIdentity, mismatch, read_profile

_log = logging.getLogger("isochrone")
_GUESS = ModelProfile((1,), (Load(solo_ns=10_000_000, compute=0.5, l2=0.5, dram=0.2),))
"""Profile of a model that does not run on synthetic inputs; its first batches correct it."""


Inputs = Callable[[int | None], Mapping[str, Array]]
"""Makes a batch of that many rows in the model's whole shapes; None: of a model that does not batch."""


class LoadProfile(NamedTuple):
    """group: of the requests whose shapes it was measured with, None where it is a guess; see `batch.group_of`."""

    profile: ModelProfile
    group: int | None


class Runs(Protocol):
    """Runs that measure a model."""

    def run(self, batch_size: int) -> int:
        """Nanoseconds that one batch takes alone. Raises EngineError."""

    def clock(self) -> int:
        """Nanoseconds that the runs' budget is counted in."""

    @property
    def patient(self) -> bool:
        """False once they have waited for the device so long that what is left of their budget is forfeit."""


BeginRuns = Callable[[ModelConfig, Engine, Inputs], AbstractContextManager[Runs]]


class _Direct(NamedTuple):
    run: Callable[[int], int]
    clock: Callable[[], int]
    patient: bool = True


@contextmanager
def direct_runs(config: ModelConfig, engine: Engine, inputs: Inputs) -> Iterator[Runs]:
    """Run on the first lane's core at once, whoever else runs."""
    with on_first_lane(config):
        yield _Direct(partial(timed_run, config, engine, inputs), time.perf_counter_ns)


def profile_at_load(
    config: ModelConfig,
    engine: Engine,
    trial: Trial,
    begin_runs: BeginRuns = direct_runs,
    attend: Attend | None = None,
) -> LoadProfile:
    """Solo latencies and features over batch sizes up to `max_batch_size`; never fails for want of a profile.

    attend: to children; see `profiler.child.run_module`. Raises ConfigError where a GPU cannot be identified.
    """
    synthetic = _synthetic_inputs(config, trial)
    stored = _stored_profile(config, engine)
    if stored is not None:
        shapes = stored.shapes or (
            shapes_of(config, partial(arrays, config.inputs, synthetic)) if synthetic else _static_shapes(config)
        )
        return LoadProfile(stored.profile(), None if shapes is None else group_of(shapes))
    if synthetic is None:
        _log.warning(
            "isochrone: model '%s': %s; its first requests are its profile; model_warmup can name inputs that run",
            config.name,
            trial.why,
        )
        return LoadProfile(_GUESS, None)
    return _brief_profile(config, engine, synthetic, begin_runs, attend)


def inputs_of(config: ModelConfig, trial: Trial) -> Inputs | None:
    """Inputs that the model runs on as it is served, None where none are known."""
    synthetic = _synthetic_inputs(config, trial)
    return None if synthetic is None else partial(arrays, config.inputs, synthetic)


def _synthetic_inputs(config: ModelConfig, trial: Trial) -> SyntheticInputs | None:
    synthetic = trial.as_batch if config.max_batch_size > 0 else trial.as_is or trial.as_batch
    return (
        synthetic if synthetic is not None and all(s.optional or s.name in synthetic for s in config.inputs) else None
    )


def shapes_of(config: ModelConfig, inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """Shapes of a request with these inputs, without its rows."""
    lead = 1 if config.max_batch_size > 0 else 0
    return {name: array.shape[lead:] for name, array in inputs(1 if lead else None).items()}


def _are_usual(config: ModelConfig, synthetic: SyntheticInputs) -> bool:
    """True where the model file alone determines these inputs."""
    return _static_shapes(config) is not None and not any(fill.data or fill.zeros for fill in synthetic.values())


def _static_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]] | None:
    """Shapes of a request, None where the model leaves one open."""
    shapes = {spec.name: spec.shape for spec in config.inputs if not spec.optional}
    return None if any(-1 in shape for shape in shapes.values()) else shapes


def identity_of(config: ModelConfig, engine: Engine) -> ProfileIdentity:
    """Identity that a profile of this model with this engine is valid for.

    Raises OSError where the model file cannot be read, ConfigError where a GPU cannot be identified.
    """
    return ProfileIdentity(_device_name(config), engine.identity, sha256_of(config.model_file))


def _device_name(config: ModelConfig) -> str:
    return config.emulated or device_name(config.device_id)


def counted_features(
    config: ModelConfig,
    directory: Path,
    batch_sizes: Sequence[int],
    why: str | None = None,
    attend: Attend | None = None,
) -> FeatureSource:
    """Features from the model's graph, see `feature_source`, or as the file of an emulated model states them.

    Raises ConfigError where a GPU cannot be identified.
    """
    file = config.model_file
    if config.emulated:
        return SpecifiedFeatures(read_spec(file, config.emulated))
    graph = (graph_of(file) if is_plan(file) else None) or file
    return feature_source(graph, batch_sizes, partial(device_peaks, config.device_id, directory), why, attend)


def _stored_profile(config: ModelConfig, engine: Engine) -> ProfileFile | None:
    """Profile of the version directory; None, with the reason in the log, where it cannot be used."""
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
        return found
    _log.warning("isochrone: model '%s': %s, so it is profiled briefly", config.name, why)
    return None


def _brief_profile(
    config: ModelConfig, engine: Engine, synthetic: SyntheticInputs, begin_runs: BeginRuns, attend: Attend | None
) -> LoadProfile:
    inputs = partial(arrays, config.inputs, synthetic)
    digest = hashlib.sha256(msgspec.json.encode(synthetic)).hexdigest()[:16]
    try:
        with begin_runs(config, engine, inputs) as runs:
            brief = brief_profile(
                config.model_file,
                runs.run,
                config.max_batch_size,
                directory=runtime_dir(),
                device=_device_name(config),
                engine=engine.identity if _are_usual(config, synthetic) else f"{engine.identity}, inputs {digest}",
                features=partial(_features_at_low_priority, config, attend),
                budget=Budget(clock=runs.clock, was_whole=lambda: runs.patient),
            )
    except EngineError as error:
        _log.warning(
            "isochrone: model '%s' does not run on synthetic inputs (%s), so its first requests are its profile",
            config.name,
            error,
        )
        return LoadProfile(_GUESS, None)
    if brief.note:
        _log.warning("isochrone: model '%s': %s", config.name, brief.note)
    return LoadProfile(brief.profile, group_of(shapes_of(config, inputs)))


def _features_at_low_priority(config: ModelConfig, attend: Attend | None, batch_sizes: Sequence[int]) -> FeatureSource:
    with LOADING:  # which the processes that count them take over
        return counted_features(config, runtime_dir(), batch_sizes, attend=attend)


def timed_run(config: ModelConfig, engine: Engine, inputs: Inputs, batch_size: int) -> int:
    """Nanoseconds that the engine takes for one batch. Raises EngineError."""
    feeds = inputs(batch_size if config.max_batch_size > 0 else None)
    names = [spec.name for spec in config.outputs]
    return engine.run(0, {name: [array] for name, array in feeds.items()}, names).exec_ns


@contextmanager
def on_first_lane(config: ModelConfig) -> Iterator[None]:
    """Keeps this thread on the core of lane 0, as in serving, where lanes are cores."""
    allowed = os.sched_getaffinity(0)
    try:
        if cores := pinned_cores(config):
            pin_thread(cores[0])
        yield
    finally:
        os.sched_setaffinity(0, allowed)
