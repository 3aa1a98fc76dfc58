"""Equal models share one engine, which is closed when the last of them is gone; with ONNX Runtime and real files."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from backend.engine_process.store import EngineHandle, EngineStore
from backend.engine_process.wire.messages import PROTOCOL, OpenModel
from backend.engines.loading import load_engine
from backend.engines.protocol import Engine, EngineOptions
from backend.errors import ConfigError
from tests.server.harness import mlp, write_model


class Store(EngineStore):
    """Keeps account of what it loaded."""

    def __init__(self) -> None:
        self.loaded: list[Path] = []
        super().__init__(self._counted)

    def _counted(self, file: Path, options: EngineOptions) -> Engine:
        self.loaded.append(file)
        return load_engine(file, options)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_model(tmp_path, "m", mlp(width=4), "") / "1" / "model.onnx"


def model(file: Path) -> OpenModel:
    return OpenModel(PROTOCOL, str(file), EngineOptions(None, 2, 8))


def runs(held: EngineHandle) -> bool:
    """Whether its engine is open still."""
    try:
        held.engine.run(0, {"x": [np.ones((1, 4), np.float32)]}, ["y"])
    except AssertionError:
        return False
    return True


def test_equal_models_share_an_engine_until_the_last_is_gone(store: Store, file: Path) -> None:
    first, second = store.acquire(model(file)), store.acquire(model(file))
    third = second.again()
    assert first.engine is second.engine is third.engine
    assert store.loaded == [file]
    for held in (first, second):
        held.release()
        assert runs(held)
    third.release()
    assert not runs(third)
    assert store.acquire(model(file)).engine is not first.engine
    assert store.loaded == [file] * 2


def test_models_that_ask_at_the_same_time_wait_for_one_engine(store: Store, file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(store.acquire, [model(file)] * 8))
    assert len({id(each.engine) for each in held}) == 1
    assert store.loaded == [file]


def test_versions_that_are_one_folder_share_an_engine(store: Store, file: Path) -> None:
    (file.parents[1] / "2").symlink_to("1")
    other = file.parents[1] / "2" / file.name
    assert store.acquire(model(file)).engine is store.acquire(model(other)).engine
    assert store.loaded == [file]


@pytest.mark.parametrize("changed", ["model.onnx", "model.onnx.data"], ids=["the_model", "weights_beside_it"])
def test_a_file_that_changed_is_another_model(store: Store, file: Path, changed: str) -> None:
    beside = file.with_name(changed)
    beside.write_bytes(file.read_bytes())
    first = store.acquire(model(file))
    os.utime(beside, ns=(0, 0))
    assert store.acquire(model(file)).engine is not first.engine


def test_a_profile_beside_it_changes_nothing(store: Store, file: Path) -> None:
    first = store.acquire(model(file))
    file.with_name("profile.json").write_text("{}")
    assert store.acquire(model(file)).engine is first.engine


def test_a_model_that_cannot_be_loaded_leaves_nothing(store: Store, file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(ConfigError, match="is empty"):
            store.acquire(model(file))
    file.write_bytes(content)
    held = store.acquire(model(file))
    held.release()
    assert not runs(held)
