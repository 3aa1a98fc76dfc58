"""Placement of a model by its configuration: the process that its engine lives in, its lanes, and their cores."""

from __future__ import annotations

from backend.config.model_config import EngineConfig
from backend.device.mps import limit_multiprocessors, mps_runs
from backend.engine_process.client.engine import EngineClient
from backend.engines.emulated.spec import read_spec
from backend.engines.loading import engine_of, load_engine
from backend.engines.protocol import Engine
from backend.errors import ConfigError
from backend.linux.cpu_topology import core_budget, lane_cores, may_pin
from backend.simulation.gpu_law import Regime

GPU_LANES = 2


def open_engine(config: EngineConfig) -> Engine:
    """Load the model file with the engine and in the process that the configuration asks for. Raises IsochroneError."""
    parameters, file = config.parameters, config.model_file
    engine = engine_of(file)
    if parameters.engine not in ("auto", engine):
        made_by = {"tensorrt": "make a plan with `isochrone build`", "emulated": "make one with `isochrone emulate`"}
        advice = made_by.get(parameters.engine) if engine == "onnxruntime" else f'use "auto" or "{engine}"'
        raise ConfigError(f"parameter 'engine' is \"{parameters.engine}\", but the model file is '{file}'; {advice}")
    if engine != "onnxruntime" and config.onnx.op_libraries:
        raise ConfigError(
            f"op_library_filename in model_operations has operators for a model.onnx, but the model file is '{file}'; "
            "leave it out"
        )
    if config.emulated:
        _check_emulated(config)
    options, shared = config.options(lanes_of(config)), in_engine_process(config)
    if parameters.mps_percent is not None and not config.emulated:
        _limit_multiprocessors(config, parameters.mps_percent, shared=shared)
    return EngineClient(config.device, file, options) if shared else load_engine(file, options)


def in_engine_process(config: EngineConfig) -> bool:
    """True where the engine lives in the device's engine process, as `engine_process` says.

    `auto`: on a GPU without MPS, where batches of several processes only time-slice, and on an emulated one.
    """
    asked = config.parameters.engine_process
    if asked == "auto":
        return config.emulated is not None or (config.device_id is not None and not mps_runs())
    return asked == "shared"


def lanes_of(config: EngineConfig) -> int:
    """Concurrent batches on the device; by default on CPU one for each core's worth of time."""
    return config.parameters.device_lanes or (core_budget() if config.on_cpu else GPU_LANES)


def pinned_cores(config: EngineConfig) -> list[int] | None:
    """The core that each lane's threads are pinned to, None where lanes are not pinned."""
    if not config.on_cpu or not may_pin():
        return None
    return list(dict.fromkeys(cores[0] for cores in lane_cores(lanes_of(config))))


def preemptible_lanes(config: EngineConfig) -> int:
    """Most lanes that the kernel can suspend for others: those that have a core, of engines in this process."""
    return core_budget() if config.on_cpu and may_pin() and not in_engine_process(config) else 0


def _check_emulated(config: EngineConfig) -> None:
    """Refuse parameters that an emulated device cannot keep. Raises ConfigError."""
    if config.parameters.engine_process == "own":
        raise ConfigError(
            "parameter 'engine_process' is \"own\", but an emulated device lives in one process for all its models; "
            'use "auto" or "shared"'
        )
    percent, regime = config.parameters.mps_percent, read_spec(config.model_file, config.emulated).device.regime
    if percent is not None and regime is not Regime.SHARED:
        raise ConfigError(
            f'parameter \'mps_percent\' is "{percent}", but device.regime is "{regime.value}" in '
            f"'{config.model_file}', where no process has a share; leave it out, or make the regime \"shared\""
        )


def _limit_multiprocessors(config: EngineConfig, percent: int, *, shared: bool) -> None:
    """Apply `mps_percent`, before CUDA starts in this process. Raises ConfigError."""
    if config.device_id is None:
        raise ConfigError(
            f"parameter 'mps_percent' is \"{percent}\", but this instance is not on a GPU; "
            "leave it out, or use KIND_GPU"
        )
    if shared:
        raise ConfigError(
            f"parameter 'mps_percent' is \"{percent}\", but the engine runs in one process with "
            "others, which have no shares; start NVIDIA's MPS, or set 'engine_process' to \"own\""
        )
    limit_multiprocessors(percent)
