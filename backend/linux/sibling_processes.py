"""Processes that the same parent started with the same first argument, read from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_PARENT, _STARTED = 1, 19
"""Fields of /proc/PID/stat after the command's name: ppid, and starttime in clock ticks since the boot."""


def has_older_siblings(processes: Path = Path("/proc"), own: int | None = None) -> bool:
    """True where such a process began before this one; of two that began together the lower id counts as the older.

    processes: as /proc shows them; own: id of this one.
    """
    own = own or os.getpid()
    mine = _read(processes / str(own))
    if mine is None:
        return True
    parent, argument, started = mine
    for folder in processes.iterdir():
        other = _read(folder) if folder.name.isdecimal() else None
        if other is not None and other[:2] == (parent, argument) and (other[2], int(folder.name)) < (started, own):
            return True
    return False


def _read(folder: Path) -> tuple[int, bytes, int] | None:
    """Parent, first argument and start of a process; None where it is gone, or not visible."""
    try:
        fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        arguments = (folder / "cmdline").read_bytes().split(b"\0")
        return int(fields[_PARENT]), arguments[1], int(fields[_STARTED])
    except (OSError, IndexError, ValueError):
        return None
