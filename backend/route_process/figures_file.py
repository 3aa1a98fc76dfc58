"""The file in which `isochrone place` keeps what it has learned of models on types of machines."""

from __future__ import annotations

from pathlib import Path

import msgspec

from backend.errors import ConfigError
from backend.fleet.machine_figures import MachineFigures
from predictor.bounded_file import read_at_most
from profiler.store import write_json

_BYTES_MAX = 1 << 24


def read_figures(path: Path | None) -> MachineFigures:
    """Figures that are kept there; none yet without a path or a file. Raises ConfigError on anything else."""
    found = MachineFigures()
    if path is None:
        return found
    try:
        found.restore(msgspec.json.decode(read_at_most(path, _BYTES_MAX)))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f"--figures {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--figures {path} is no file that `isochrone place` wrote: {error}") from None
    return found


def write_figures(path: Path, figures: MachineFigures) -> None:
    """Replace the file. Raises ConfigError."""
    try:
        write_json(path, figures.state())
    except OSError as error:
        raise ConfigError(f"--figures {path} cannot be written: {error.strerror}") from None
