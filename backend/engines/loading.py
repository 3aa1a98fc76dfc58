"""Chooses a model's engine and where on the device its batches run."""

from __future__ import annotations

from pathlib import Path

from backend.engines.onnx import OnnxEngine
from backend.engines.placement import in_engine_process
from backend.engines.protocol import Engine
from backend.engines.shared import SharedEngine
from backend.errors import ConfigError
from backend.lanes import cores
from backend.model_config import ModelConfig

GPU_LANES = 2


def open_engine(config: ModelConfig) -> Engine:
    """Load the model file with the engine that the configuration asks for, where it asks for it. Raises ConfigError."""
    parameters = config.parameters
    by_file = "tensorrt" if config.model_file.suffix == ".plan" else "onnxruntime"
    engine = by_file if parameters.engine == "auto" else parameters.engine
    if parameters.mps_percent is not None:
        raise ConfigError(f"parameter 'mps_percent' is \"{parameters.mps_percent}\", which is not part of this release")
    if in_engine_process(config):
        return SharedEngine(config, engine)
    return open_here(engine, config.model_file, config.device_id)


def open_here(engine: str, file: Path, device_id: int | None) -> Engine:
    """Load a model file in this process. device_id: a GPU, None on CPU. Raises ConfigError."""
    if engine == "tensorrt":
        raise ConfigError(f"engine 'tensorrt' for '{file}' is not part of this release; use a model.onnx")
    return OnnxEngine(file, device_id=device_id)


def default_lanes(config: ModelConfig) -> int:
    """Concurrent batches where the configuration leaves it open: a core each on CPU."""
    return len(cores()) if config.device_id is None else GPU_LANES


def pinned_cores(config: ModelConfig) -> list[int] | None:
    """The core of each lane, None where lanes are not cores."""
    return cores() if config.device_id is None else None
