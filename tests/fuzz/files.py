"""One file of this process's own, for what is read by its path; gone when the process ends."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="iso-fuzz-")


def file_of(name: str, data: bytes) -> Path:
    """A file of that name with that content, in place of the last."""
    path = Path(_folder().name) / name
    path.write_bytes(data)
    return path
