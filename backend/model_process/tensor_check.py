"""Checks at load that this numpy's arrays come through Triton's tensors as they are."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

from backend.errors import ConfigError

_SAMPLES = (np.array([[1.5, -2.0, 3.25]], np.float32), np.array([[True, False, True]]))
"""No text: where these do not come through, it ends the process."""


def check_tensors_come_through() -> None:
    """Raise ConfigError where they do not: tritonserver 2.51 does not know numpy 2, and would answer 0 bytes."""
    for sample in _SAMPLES:
        # As DLPack, since `as_numpy` hands back the very array, whatever the tensor has made of it.
        tensor = pb_utils.Tensor.from_dlpack("x", pb_utils.Tensor("x", sample).to_dlpack())
        if not np.array_equal(tensor.as_numpy(), sample):
            raise ConfigError(
                f"this tritonserver misreads the arrays of numpy {np.__version__}: pip install 'numpy<2', "
                "or use a newer tritonserver"
            )
