"""Where a model's engine lives: in the model's own process, or with all others of its device in one engine process."""

from __future__ import annotations

import os
from pathlib import Path

from backend.model_config import ModelConfig


def in_engine_process(config: ModelConfig) -> bool:
    """As `engine_process` says. `auto`: on a GPU without MPS, where batches of several processes only time-slice."""
    asked = config.parameters.engine_process
    if asked == "auto":
        return config.device_id is not None and not under_mps()
    return asked == "shared"


def under_mps() -> bool:
    """Whether CUDA programs started from here reach a multi-process service: its daemon listens in this folder."""
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY")
    return bool(folder) and Path(str(folder), "control").is_socket()
