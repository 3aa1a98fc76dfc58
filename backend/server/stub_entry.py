"""Installed as `model.py` in tritonserver's working directory, where Triton's stub looks first when it imports `model`.

It stands in for the `model.py` of the backend that the stub runs, which the stub searches for last: after the user's
working directory and after every package of the environment, where `model` is a common name.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def _load() -> None:
    # The stub has just appended its backend's folder to sys.path, so the last one with a model.py is the right one.
    file = next(file for folder in reversed(sys.path) if folder and (file := Path(folder, "model.py")).is_file())
    spec = importlib.util.spec_from_file_location("model", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["model"] = module  # what the import statement returns
    spec.loader.exec_module(module)


if __name__ == "model":
    _load()
