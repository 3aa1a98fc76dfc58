"""The learned state in a file that survives a restart: atomic, versioned, data only.

A file that cannot be used is renamed, never trusted in part and never deleted.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from predictor.bound import UpperBound
from predictor.bounded_file import read_at_most
from predictor.learners.isochrone import Isochrone
from predictor.transfers import TransferModel

VERSION = 5
_BYTES_MAX = 1 << 24
_FORMAT = "isochrone-predictor"
_log = logging.getLogger("isochrone.predictor")


class Learned(NamedTuple):
    """All that a device's scheduler learns."""

    learner: Isochrone
    bound: UpperBound
    transfers: TransferModel


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    version: int
    learner: dict[str, object]
    bound: dict[str, object]
    transfers: dict[str, object] | None = None
    """None: written before there were any."""


class _Head(msgspec.Struct):
    format: str
    version: int


def encode(learned: Learned) -> bytes:
    """Content of the file."""
    learner, bound, transfers = (part.state() for part in learned)
    return msgspec.msgpack.encode(_File(_FORMAT, VERSION, learner, bound, transfers))


def save(path: Path, data: bytes) -> None:
    """Replaces the file by what `encode` gave. Raises OSError where it cannot, the file as it was."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def load(path: Path) -> Learned:
    """The saved state, else the prior: silently where there is no file, with a warning where it is of no use."""
    try:
        if path.exists() and not path.is_file():  # a device or a folder must not be set aside
            raise OSError(errno.EINVAL, "it is not a file")
        data = read_at_most(path, _BYTES_MAX)
    except FileNotFoundError:
        return _prior()
    except OSError as error:
        _log.warning("%s cannot be read (%s); the predictor starts from its prior", path, error.strerror)
        return _prior()
    try:
        return _decoded(data)
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:  # msgspec's errors are of the last
        broken = path.with_name(path.name + ".broken")
        _log.warning("%s is set aside as %s (%s); the predictor starts from its prior", path, broken.name, error)
        try:
            path.replace(broken)
        except OSError as failed:
            _log.warning("%s cannot be renamed: %s", path, failed.strerror)
        return _prior()


def _prior() -> Learned:
    return Learned(Isochrone(), UpperBound(), TransferModel())


def _decoded(data: bytes) -> Learned:
    head = msgspec.msgpack.decode(data, type=_Head)
    if (head.format, head.version) != (_FORMAT, VERSION):
        raise ValueError(f"it is {head.format} version {head.version}, not {_FORMAT} version {VERSION}")
    file = msgspec.msgpack.decode(data, type=_File)
    learned = _prior()
    learned.learner.restore(file.learner)
    learned.bound.restore(file.bound)
    if file.transfers is not None:
        learned.transfers.restore(file.transfers)
    return learned
