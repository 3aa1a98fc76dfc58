"""Arrays that do not come through Triton's tensors are refused; tests/server/test_numpy.py has the real ones."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backend.errors import ConfigError


class Tensor:
    """Triton's, with what it makes of an array's memory."""

    def __init__(self, _name: str, array: Any) -> None:
        self._array = array

    def to_dlpack(self) -> Any:
        return self._array

    @staticmethod
    def from_dlpack(_name: str, array: Any) -> Any:
        return SimpleNamespace(as_numpy=lambda: array)


class Misreading(Tensor):
    """As tritonserver 2.51 does with numpy 2: the strides are taken for 0."""

    def to_dlpack(self) -> Any:
        return np.broadcast_to(self._array.ravel()[0], self._array.shape)


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module = ModuleType("triton_python_backend_utils")
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    sys.modules.pop("backend.model_process.tensor_check", None)
    yield module
    sys.modules.pop("backend.model_process.tensor_check", None)


def test_arrays_that_come_through(triton: Any) -> None:
    triton.Tensor = Tensor
    importlib.import_module("backend.model_process.tensor_check").check_tensors_come_through()


def test_arrays_that_do_not(triton: Any) -> None:
    triton.Tensor = Misreading
    with pytest.raises(ConfigError) as refused:
        importlib.import_module("backend.model_process.tensor_check").check_tensors_come_through()
    assert str(refused.value) == (
        f"this tritonserver misreads the arrays of numpy {np.__version__}: pip install 'numpy<2', "
        "or use a newer tritonserver"
    )
