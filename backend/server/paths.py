"""Paths as Triton's Python backend can take them: it starts a model's process by a line for a shell, in plain ASCII.

With a space or an umlaut in one of them the server hangs, or says of a file that is there that it is not.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from backend.errors import ConfigError

_FIT = re.compile(r"[A-Za-z0-9_./+,:@%=-]+")


def check_path(what: str, path: Path | str) -> None:
    """what: how the path is called. Raises ConfigError."""
    if not _FIT.fullmatch(str(path)):
        raise ConfigError(
            f"{what} is '{path}', which Triton's Python backend cannot take: "
            "paths and names of models may hold ASCII letters, digits and the characters . _ - + , : @ % = only"
        )


def temporary_base() -> str:
    """The folder for temporary ones; another than the user's where that cannot be taken."""
    base = tempfile.gettempdir()
    return base if _FIT.fullmatch(base) else "/tmp"
