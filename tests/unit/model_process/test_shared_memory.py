"""Answers get their shared memory before they are sent, where that is scarce, and an error where they do not fit.

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
    """Fake Triton for the module under test. message: of the error that it answers with."""

    def __init__(self) -> None:
        self.message = "Failed to increase the shared memory pool size"
        self.requested: list[str] = []

    def request(self, *, model_name: str, requested_output_names: list[str], inputs: list[Any]) -> Any:
        assert (requested_output_names, inputs) == ([], ["tensor"])
        self.requested.append(model_name)
        error = SimpleNamespace(message=lambda: self.message.format(model_name))
        return SimpleNamespace(exec=lambda: SimpleNamespace(error=lambda: error))


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


def test_where_memory_is_plenty_triton_is_not_called(
    module: Any,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free(module, monkeypatch, 25 * MB)
    module.place(["tensor"], [np.zeros(MB, np.uint8)])
    assert server.requested == []


def test_tensors_that_reach_triton_have_their_memory(
    module: Any,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free(module, monkeypatch, 23 * MB)
    server.message = "Model '{}' is not ready"
    module.place(["tensor"], [np.zeros(MB, np.uint8)])
    assert "/" in server.requested[0]  # which no model's name has


@pytest.mark.parametrize(
    ("array", "size"),
    [
        (np.zeros(20 * MB, np.float32), "80.0"),
        (np.array(["grün" * MB, b"\xff" * 2 * MB], object), "7.0"),
    ],
    ids=["numbers", "text"],
)
def test_an_answer_that_does_not_fit(
    array: Any,
    size: str,
    module: Any,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free(module, monkeypatch, 5 * MB)
    with pytest.raises(AnswerError) as refused:
        module.place(["tensor"], [array])
    assert str(refused.value) == (
        f"its answer of {size} MB does not fit the shared memory that Triton takes it from: "
        "5.0 MB of /dev/shm are free; give the container more, as with `docker run --shm-size=2g`"
    )
    assert len(server.requested) == 1
