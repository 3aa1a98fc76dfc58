"""Imports TensorRT by whichever name it is installed under."""

from __future__ import annotations

import importlib
from types import ModuleType

from backend.errors import ConfigError

NAMES = ("tensorrt", "tensorrt_bindings", "tensorrt_lean", "tensorrt_lean_bindings")
"""The whole package; its bindings alone, for a TensorRT of the system; the same of the lean runtime."""
OLDEST = (8, 5)


def import_tensorrt() -> ModuleType:
    """First module that can be imported. Raises ConfigError where none can, or where it is too old."""
    failures: list[str] = []
    for name in NAMES:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            if not (isinstance(error, ModuleNotFoundError) and error.name == name):
                failures.append(f"{name}: {error}")  # it is there, but its libraries are not
            continue
        if release_of(module) < OLDEST:
            raise ConfigError(f"a plan needs TensorRT 8.5 or newer, but this is {module.__version__}")
        return module
    why = f"cannot be imported here ({failures[0]})" if failures else "is not installed here"
    raise ConfigError(f"a plan needs TensorRT, which {why}; pip install tensorrt in the version that built the plan")


def release_of(module: ModuleType) -> tuple[int, int]:
    """Major and minor version."""
    major, minor = str(module.__version__).split(".")[:2]
    return int(major), int(minor)
