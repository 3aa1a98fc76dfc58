"""A model's link to an engine process that is lost: batches wait for what may pass, and are told what does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from backend.engine_process.client import connection
from backend.engine_process.client.connection import EngineConnection
from backend.engine_process.wire.messages import PROTOCOL, OpenModel
from backend.engines.protocol import EngineOptions
from backend.errors import ConfigError, EngineLostError, IsochroneError, ServerError


class FakeSession:
    """Lasts until it is hung up."""

    opened = None

    def __init__(self) -> None:
        self._over = threading.Event()

    def wait_for_end(self) -> None:
        self._over.wait()

    def hang_up(self) -> None:
        self._over.set()

    def close(self) -> None:
        self._over.set()


@contextmanager
def opening(monkeypatch: pytest.MonkeyPatch, *outcomes: IsochroneError | FakeSession) -> Iterator[EngineConnection]:
    """A link whose attempts to open the model end so, the last of them for ever."""
    left = [*outcomes]

    def open_next(_: Any) -> Any:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, IsochroneError):
            raise outcome
        return outcome

    monkeypatch.setattr(EngineConnection, "_open", open_next)
    monkeypatch.setattr(connection, "_AGAIN_S", 0.001)
    link = EngineConnection("cpu", OpenModel(PROTOCOL, str(Path("model.onnx")), EngineOptions(None, 2, 8)))
    link.open()
    try:
        yield link
    finally:
        link.close()


def test_a_failure_that_passes_costs_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = FakeSession(), FakeSession()
    short = ServerError("the engine process cannot be started: Too many open files")
    with opening(monkeypatch, first, short, short, short, second) as link:
        link.lost(cast(Any, first))
        assert link.session() is cast(Any, second)
        assert link.failure is None


def test_one_that_lasts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_TOLD_AFTER_S", 0.01)
    first = FakeSession()
    with opening(monkeypatch, first, ServerError("no engine process answers")) as link:
        link.lost(cast(Any, first))
        with pytest.raises(EngineLostError, match="the model is lost: no engine process answers"):
            link.session()
        assert link.failure == "no engine process answers"


def test_a_refusal_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = FakeSession()
    with opening(monkeypatch, first, ConfigError("it is another model now")) as link:
        link.lost(cast(Any, first))
        with pytest.raises(EngineLostError, match="it is another model now"):
            link.session()
