"""What a folder of records is good for, kept in it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.harness.errors import BenchmarkError

_FILE = "plan.json"


def take_up(folder: Path, stamp: object, of: str) -> None:
    """Begin a folder, or go on with one of the same stamp. of: what a stamp stands for. Raises BenchmarkError."""
    path, content = folder / _FILE, msgspec.json.encode(stamp)
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    elif path.read_bytes() != content:
        raise BenchmarkError(f"'{folder}' holds records of another {of}; --again removes them")
