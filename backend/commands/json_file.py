"""Writes what a command found to the file that its `--json` names."""

from __future__ import annotations

from pathlib import Path

import msgspec

from backend.errors import ConfigError


def write_result(path: Path, found: object) -> None:
    """Write it, indented. Raises ConfigError."""
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
