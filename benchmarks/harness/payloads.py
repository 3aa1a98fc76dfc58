"""Valid random requests for models of the zoo, as tritonclient sends them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient import grpc as triton
from tritonclient.utils import np_to_triton_dtype

from zoo.inputs import random_inputs


def payloads(files: Mapping[str, Path], seed: int | None = None) -> dict[str, list[Any]]:
    """A request of one row per model, from its file. seed: for all of them; None: each model's place."""
    return {model: payload(file, i if seed is None else seed) for i, (model, file) in enumerate(files.items())}


def payload(model_file: Path, seed: int = 0) -> list[Any]:
    """A random request of one row for this model file."""
    inputs = []
    for name, array in random_inputs(model_file, 1, seed).items():
        tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        inputs.append(tensor)
    return inputs
