"""Paths that Triton's Python backend accepts: it starts a model's process by a shell command in plain ASCII.

With a space or an umlaut in one of them the server hangs, or reports that an existing file does not exist.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from backend.errors import ConfigError

_ACCEPTED = re.compile(r"[A-Za-z0-9_./+,:@%=-]+")
# A Unix socket's path has at most 107 bytes; the runtime folder must leave room for the socket's name.
_TEMP_DIR_CHARS_MAX = 48


def check_path(what: str, path: Path | str) -> None:
    """Raise ConfigError for a path that it does not accept. what: the path's name in the error."""
    if not _ACCEPTED.fullmatch(str(path)):
        raise ConfigError(
            f"{what} is '{path}', which Triton's Python backend cannot take: "
            "paths and names of models may hold ASCII letters, digits and the characters . _ - + , : @ % = only"
        )


def temporary_base() -> str:
    """Parent of temporary folders: the user's, unless Triton does not accept that."""
    base = tempfile.gettempdir()
    return base if _ACCEPTED.fullmatch(base) else "/tmp"


def short_temporary_folder() -> Path:
    """Make a folder in which a runtime folder fits; the caller removes it."""
    base = temporary_base()
    return Path(tempfile.mkdtemp(prefix="iso-", dir=base if len(base) <= _TEMP_DIR_CHARS_MAX else "/tmp")).resolve()
