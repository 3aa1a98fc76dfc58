"""Chooses a model's engine and where on the device its batches run."""

from __future__ import annotations

from pathlib import Path

from backend.device.mps import limit_multiprocessors
from backend.engines.onnx import OnnxEngine, read_specs
from backend.engines.protocol import Engine, ModelSpecs
from backend.errors import ConfigError
from backend.lanes import cores
from backend.model_config import ModelConfig

GPU_LANES = 2


def open_engine(config: ModelConfig) -> Engine:
    """Load the model file with the engine that the configuration asks for. Raises IsochroneError."""
    parameters, file = config.parameters, config.model_file
    fitting = "tensorrt" if is_plan(file) else "onnxruntime"
    if parameters.engine not in ("auto", fitting):
        made = "make a plan with `isochrone build`" if fitting == "onnxruntime" else 'use "auto" or "tensorrt"'
        raise ConfigError(f"parameter 'engine' is \"{parameters.engine}\", but the model file is '{file}'; {made}")
    if parameters.engine_process == "shared":
        raise ConfigError('parameter \'engine_process\' is "shared", which is not part of this release; use "own"')
    if parameters.mps_percent is not None and config.device_id is None:
        raise ConfigError(f"parameter 'mps_percent' is \"{parameters.mps_percent}\", but this instance is not on a GPU")
    if fitting == "onnxruntime":
        if parameters.mps_percent is not None:
            limit_multiprocessors(parameters.mps_percent)
        return OnnxEngine(file, device_id=config.device_id)
    from backend.engines.tensorrt_loading import open_plan  # noqa: PLC0415 - a server without plans needs none of it

    return open_plan(
        file,
        device_id=config.device_id,
        lanes=parameters.device_lanes or default_lanes(config),
        max_batch_size=config.max_batch_size,
        mps_percent=parameters.mps_percent,
    )


def is_plan(file: Path) -> bool:
    """Whether TensorRT runs it; anything else is ONNX."""
    return file.suffix == ".plan"


def read_model_specs(file: Path, device_id: int | None) -> ModelSpecs:
    """Inputs and outputs of a model file, without preparing it to run where that can be. Raises ConfigError."""
    if not is_plan(file):
        return ModelSpecs(*read_specs(file))
    from backend.engines.tensorrt_loading import read_plan_specs  # noqa: PLC0415 - as above

    return read_plan_specs(file, device_id)


def default_lanes(config: ModelConfig) -> int:
    """Concurrent batches where the configuration leaves it open: a core each on CPU."""
    return len(cores()) if config.device_id is None else GPU_LANES


def pinned_cores(config: ModelConfig) -> list[int] | None:
    """The core of each lane, None where lanes are not cores."""
    return cores() if config.device_id is None else None
