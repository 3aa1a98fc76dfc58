"""A valid random request for a model of the zoo, as tritonclient sends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tritonclient import grpc as triton
from tritonclient.utils import np_to_triton_dtype

from zoo.inputs import random_inputs


def payload(model_file: Path, seed: int = 0) -> list[Any]:
    """A random request of one row for this model file."""
    inputs = []
    for name, array in random_inputs(model_file, 1, seed).items():
        tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        inputs.append(tensor)
    return inputs
