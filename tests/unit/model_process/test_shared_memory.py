"""When an answer is laid down before it is sent, and what is said where it does not fit.

tests/server/test_shared_memory.py has the real memory.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backend.errors import AnswerError

MB = 1_000_000


class Server:
    """The module of shared memory with a Triton and a /dev/shm that are made up. says: what Triton answers."""

    def __init__(self) -> None:
        self.says = "Failed to increase the shared memory pool size"
        self.asked: list[str] = []

    def request(self, *, model_name: str, requested_output_names: list[str], inputs: list[Any]) -> Any:
        assert (requested_output_names, inputs) == ([], ["tensor"])
        self.asked.append(model_name)
        message = self.says.format(model_name)
        return SimpleNamespace(exec=lambda: SimpleNamespace(error=lambda: SimpleNamespace(message=lambda: message)))


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def module(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    triton: Any = ModuleType("triton_python_backend_utils")
    triton.InferenceRequest = server.request
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)
    sys.modules.pop("backend.model_process.shared_memory", None)
    yield importlib.import_module("backend.model_process.shared_memory")
    sys.modules.pop("backend.model_process.shared_memory", None)


def free(module: Any, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(module.os, "statvfs", lambda _folder: SimpleNamespace(f_bavail=size // 1000, f_frsize=1000))


def test_where_there_is_plenty_nothing_is_asked(module: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    free(module, monkeypatch, 25 * MB)
    module.lay_down(["tensor"], [np.zeros(MB, np.uint8)])
    assert server.asked == []


def test_what_comes_to_triton_is_laid_down(module: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    free(module, monkeypatch, 23 * MB)
    server.says = "Model '{}' is not ready"
    module.lay_down(["tensor"], [np.zeros(MB, np.uint8)])
    assert "/" in server.asked[0]  # which no model's name has


@pytest.mark.parametrize(
    ("array", "size"),
    [
        (np.zeros(20 * MB, np.float32), "80.0"),
        (np.array(["grün" * MB, b"\xff" * 2 * MB], object), "7.0"),
    ],
    ids=["numbers", "text"],
)
def test_what_does_not_fit(array: Any, size: str, module: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    free(module, monkeypatch, 5 * MB)
    with pytest.raises(AnswerError) as refused:
        module.lay_down(["tensor"], [array])
    assert str(refused.value) == (
        f"its answer of {size} MB does not fit the shared memory that Triton takes it from: "
        "5.0 MB of /dev/shm are free; give the container more, as with `docker run --shm-size=2g`"
    )
    assert len(server.asked) == 1
