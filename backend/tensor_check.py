"""Checks at load that this numpy's arrays come through Triton's tensors as they are."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

from backend.engines.protocol import Array
from backend.errors import ConfigError

_SAMPLES = (np.array([[1.5, -2.0, 3.25]], np.float32), np.array([[True, False, True]]), np.array([[b"a", b""]], object))
"""Text comes last: where the others do not come through, it ends the process."""


def check_tensors_come_through() -> None:
    """Raises ConfigError where they do not: tritonserver before 24.12 does not know numpy 2, and answers 0 bytes."""
    for sample in _SAMPLES:
        given = pb_utils.Tensor("x", sample).as_numpy()
        if not _equal(given, sample):
            raise ConfigError(
                f"this tritonserver does not understand the arrays of numpy {np.__version__}: "
                "use an older one (pip install 'numpy<2') or a newer tritonserver"
            )


def _equal(given: Array, sample: Array) -> bool:
    return given.dtype == sample.dtype and given.shape == sample.shape and given.tobytes() == sample.tobytes()
