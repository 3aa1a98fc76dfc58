"""Runtime folder, private to the user, with the socket, lock and log of each of a device's processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.errors import ServerError

VARIABLE = "ISOCHRONE_RUNTIME_DIR"
_MAX_SOCKET_PATH = 107
"""Bytes in sockaddr_un.sun_path, less the terminating zero."""


Role = Literal["scheduler", "engine process"]


@dataclass(frozen=True)
class MeetingPoint:
    """Files of a device's scheduler, or of its engine process. state: what the scheduler's predictor learned."""

    device: str
    role: Role
    socket: Path
    lock: Path
    log: Path
    state: Path


def runtime_dir() -> Path:
    """Private folder, made where it is missing; one within a folder that others may write to, or that is another's.

    Raises ServerError where it cannot be used.
    """
    named = os.environ.get(VARIABLE)
    base = os.environ.get("XDG_RUNTIME_DIR")
    default = Path(base) / "isochrone" if base else Path(f"/tmp/isochrone-{os.getuid()}")
    # Absolute: the processes that meet there run in folders of their own.
    directory = Path(named).expanduser().absolute() if named else default
    if not named and directory.is_symlink():  # which anybody could have put into /tmp
        raise ServerError(_sentence(directory, "it is a link"))
    _make(directory)
    if not _is_private(directory):  # a volume of Kubernetes', such as an emptyDir, is root's, and everyone's
        directory /= f"isochrone-{os.getuid()}"
        _make(directory)
        if directory.is_symlink() or not _is_private(directory):
            raise ServerError(_sentence(directory, "it is not this user's alone"))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ServerError(_sentence(directory, "no permission to write"))
    return directory


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(_sentence(directory, error.strerror or str(error))) from error


def _is_private(directory: Path) -> bool:
    try:
        status = directory.stat()
    except OSError as error:
        raise ServerError(_sentence(directory, error.strerror or str(error))) from error
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def meeting_point(device: str, role: Role = "scheduler", protocol: int = 0) -> MeetingPoint:
    """Files of that process of `device` ("cpu", "gpu-0", …). Raises ServerError.

    protocol: of an engine process. Releases that do not understand each other have one each; a scheduler there can be
    only one of.
    """
    directory = runtime_dir()
    name = device if role == "scheduler" else f"{device}-engines-{protocol}"
    socket = directory / f"{name}.sock"
    if len(os.fsencode(socket)) > _MAX_SOCKET_PATH:
        raise ServerError(
            f"the {role}'s socket path '{socket}' is longer than {_MAX_SOCKET_PATH} bytes; "
            f"set {VARIABLE} to a shorter folder"
        )
    lock, log, state = (directory / f"{name}.{suffix}" for suffix in ("lock", "log", "state"))
    return MeetingPoint(device, role, socket, lock, log, state)


def _sentence(directory: Path, why: str) -> str:
    return (
        f"the scheduler's socket cannot go to '{directory}': {why}; "
        f"set {VARIABLE} to a folder that only this user can write to"
    )
