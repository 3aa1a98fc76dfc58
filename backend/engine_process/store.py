"""Engines that are open in this process: equal models share one, which is closed when the last of them is gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from backend.engine_process import heap
from backend.engine_process.wire.messages import OpenModel
from backend.engines.protocol import Engine, EngineOptions
from profiler.profile_file import NAME as PROFILE

_log = logging.getLogger("isochrone.engines")
_Key = tuple[object, ...]


@dataclass
class _StoredEngine:
    """users: handles of the engine, and threads that wait for it."""

    loading: threading.Lock = field(default_factory=threading.Lock)
    engine: Engine | None = None
    users: int = 0


class EngineHandle:
    """Keeps an engine open until it is released, once."""

    def __init__(self, engine: Engine, store: EngineStore, key: _Key) -> None:
        self.engine = engine
        self._store, self._key = store, key

    def again(self) -> EngineHandle:
        """One more handle of the engine."""
        self._store._join(self._key)
        return EngineHandle(self.engine, self._store, self._key)

    def release(self) -> None:
        """Give the handle up; the last one closes the engine."""
        self._store._leave(self._key)


class EngineStore:
    """Opens each model once, however many ask for it at a time.

    load: of a model file and its options; raises ConfigError. in_turn: one model is loaded or closed at a time. While a
    CUDA graph is captured, whatever waits for the whole GPU fails, and what a library does as it loads is unknown.
    """

    def __init__(self, load: Callable[[Path, EngineOptions], Engine], *, in_turn: bool = False) -> None:
        self._load = load
        self._turn: AbstractContextManager[object] = threading.Lock() if in_turn else nullcontext()
        self._lock = threading.Lock()
        self._entries: dict[_Key, _StoredEngine] = {}

    def acquire(self, model: OpenModel) -> EngineHandle:
        """Handle of the model's engine, which is loaded where it is not yet. Raises what loading raises."""
        file = Path(model.file)
        key = (file.parent.resolve() / file.name, model.options, _adjacent_files(file))
        entry = self._join(key)
        try:
            with entry.loading:
                if entry.engine is None:
                    with self._turn:
                        entry.engine = self._load(file, model.options)
                    heap.trim()  # memory for loading only, such as the file's content
                    _log.info("loaded '%s'", file)
        except BaseException:
            self._leave(key)
            raise
        return EngineHandle(entry.engine, self, key)

    def _join(self, key: _Key) -> _StoredEngine:
        with self._lock:
            entry = self._entries.setdefault(key, _StoredEngine())
            entry.users += 1
        return entry

    def _leave(self, key: _Key) -> None:
        with self._lock:
            entry = self._entries[key]
            entry.users -= 1
            if entry.users > 0:
                return
            del self._entries[key]
        if entry.engine is not None:
            with self._turn:
                entry.engine.close()
            heap.trim()
            _log.info("closed '%s'", key[0])


def file_stamp(file: Path) -> str:
    """Fingerprint of a file's state."""
    try:
        status = file.stat()
    except OSError:
        return "missing"
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def _adjacent_files(file: Path) -> tuple[object, ...]:
    """Fingerprints of all files in the model's version directory: weights may be in files of their own."""
    try:
        entries = sorted(file.parent.iterdir())
    except OSError:
        return ()
    return tuple((entry.name, file_stamp(entry)) for entry in entries if entry.is_file() and entry.name != PROFILE)
