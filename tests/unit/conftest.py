"""Holds unit tests to this process: none starts another one."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

_NUMPY_ASKS = "lscpu"
"""A command that numpy.testing runs as it is imported."""


@pytest.fixture(autouse=True)
def _no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*started: object, **_: object) -> NoReturn:
        pytest.fail(f"a unit test starts a process: {started}")

    def guarded(popen: Callable[..., None], *arguments: Any, **options: Any) -> None:
        if arguments[1] != _NUMPY_ASKS:
            forbidden(arguments[1])
        popen(*arguments, **options)

    popen = subprocess.Popen.__init__
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda *given, **options: guarded(popen, *given, **options))
    monkeypatch.setattr(multiprocessing.Process, "start", forbidden)
    monkeypatch.setattr(os, "fork", forbidden)
    monkeypatch.setattr(os, "system", forbidden)
    monkeypatch.setattr(os, "posix_spawn", forbidden)
