"""Chooses a model's engine and where on the device its batches run."""

from __future__ import annotations

from backend.engines.onnx import OnnxEngine
from backend.engines.protocol import Engine
from backend.errors import ConfigError
from backend.lanes import cores
from backend.model_config import ModelConfig

GPU_LANES = 2


def open_engine(config: ModelConfig) -> Engine:
    """Load the model file with the engine that the configuration asks for. Raises ConfigError."""
    parameters = config.parameters
    by_file = "tensorrt" if config.model_file.suffix == ".plan" else "onnxruntime"
    engine = by_file if parameters.engine == "auto" else parameters.engine
    if engine == "tensorrt":
        raise ConfigError(f"engine 'tensorrt' for '{config.model_file}' is not part of this release; use a model.onnx")
    if parameters.engine_process == "shared":
        raise ConfigError('parameter \'engine_process\' is "shared", which is not part of this release; use "own"')
    if parameters.mps_percent is not None:
        raise ConfigError(f"parameter 'mps_percent' is \"{parameters.mps_percent}\", which is not part of this release")
    return OnnxEngine(config.model_file, device_id=config.device_id)


def default_lanes(config: ModelConfig) -> int:
    """Concurrent batches where the configuration leaves it open: a core each on CPU."""
    return len(cores()) if config.device_id is None else GPU_LANES


def pinned_cores(config: ModelConfig) -> list[int] | None:
    """The core of each lane, None where lanes are not cores."""
    return cores() if config.device_id is None else None
