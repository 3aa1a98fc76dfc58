"""Where a model's engine lives: in the model's own process, or with all others of its device in one engine process."""

from __future__ import annotations

from backend.config.model_config import EngineConfig
from backend.device.mps import mps_runs


def in_engine_process(config: EngineConfig) -> bool:
    """As `engine_process` says. `auto`: on a GPU without MPS, where batches of several processes only time-slice."""
    asked = config.parameters.engine_process
    if asked == "auto":
        return config.device_id is not None and not mps_runs()
    return asked == "shared"
