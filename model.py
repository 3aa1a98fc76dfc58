"""What Triton imports: `backends/isochrone/model.py`. Puts its own folder first on the path, since the stub appends.

In a production backend folder the packages lie beside this file, installed with `pip install --target`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from backend.linux.loading_priority import LOADING

LOADING.lower()  # the imports take longer than the rest of many a load

from backend.triton_model import TritonPythonModel  # noqa: E402 - imports at the lowest priority

__all__ = ["TritonPythonModel"]
