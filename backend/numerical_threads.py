"""Imports numpy with a single thread of its own: arrays are small here, and more threads only wait for each other.

Numpy's BLAS reads the variable once, at its import. It is not left in the environment, for a server that is started
from here would hand it to models that are not ours.
"""

from __future__ import annotations

import os

_VARIABLE = "OPENBLAS_NUM_THREADS"
_given = os.environ.get(_VARIABLE)
os.environ.setdefault(_VARIABLE, "1")
import numpy  # noqa: E402, F401 - that it is imported here and now is the point

if _given is None:
    del os.environ[_VARIABLE]
