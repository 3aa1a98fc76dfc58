"""Small JSON files that survive a crash and concurrent writers; their meaning is their owners'."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from predictor.bounded_file import read_at_most

T = TypeVar("T")

_FILE_BYTES_MAX = 1 << 20


def read_json(path: Path, kind: type[T]) -> T | None:
    """The value in `path`; None where the file is missing, broken or of another kind."""
    try:
        return msgspec.json.decode(read_at_most(path, _FILE_BYTES_MAX), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def write_json(path: Path, value: object) -> None:
    """Replace `path` whole: a reader sees the old file or the new one. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def keep_newest(directory: Path, count: int) -> None:
    """Remove all but the `count` files touched last, drafts of crashed writers included."""
    aged = []
    for path in directory.iterdir():
        with suppress(OSError):  # another process may tidy the same folder
            aged.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(aged, reverse=True)[count:]:
        with suppress(OSError):
            path.unlink()
