"""Connects to a device's scheduler or engine process, starts it where none runs, and keeps it the only one.

There is one of each per device and runtime folder. Knows nothing of their messages.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import ServerError
from backend.linux import peer_credentials
from backend.runtime_dir import VARIABLE, MeetingPoint, Role
from profiler.child import python_command, search_path

LINGER_S = 3.0
"""Time for which a process that was started here outlives its last connection."""
_MODULES: dict[Role, str] = {
    "scheduler": "backend.scheduler_process.process",
    "engine process": "backend.engine_process.process",
}
_START_S = 5.0
_CONNECT_S = 1.0
_log = logging.getLogger("isochrone")
_started: list[subprocess.Popen[bytes]] = []
"""Kept until reaped: a killed process must not stay behind as a zombie of the model's process that started it."""


def connect_or_start(point: MeetingPoint, timeout_s: float, *options: str) -> socket.socket:
    """Connect to the process at `point`. options: to start it with. Raises ServerError where none is had in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        connection = _connect(point) or _start_and_connect(point, options)
        if connection is not None:
            return connection
        if time.monotonic() > deadline:
            raise ServerError(
                f"no {point.role} answers at '{point.socket}' within {timeout_s:g} s; its log is '{point.log}'"
            )
        time.sleep(0.01)


@contextmanager
def only_listener(point: MeetingPoint) -> Iterator[socket.socket | None]:
    """Socket on which the one process of `point` accepts connections; None where another process is that one."""
    if not _only_one(point.lock):
        yield None
        return
    point.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(point.socket))
        point.socket.chmod(0o600)
        listener.listen(128)
        try:
            yield listener
        finally:
            point.socket.unlink(missing_ok=True)


def accept(listener: socket.socket) -> socket.socket | None:
    """Next connection of `only_listener`'s socket; None where it is another user's, or cannot be had.

    Raises TimeoutError as the socket does.
    """
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        raise
    except OSError as error:  # it is gone already, or no descriptor is left
        _log.warning("a connection could not be accepted: %s", error.strerror)
        return None
    if (why := peer_credentials.refusal(connection)) is not None:
        _log.warning("a connection is refused: %s", why)
        connection.close()
        return None
    return connection


def _connect(point: MeetingPoint) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(_CONNECT_S)
    try:
        connection.connect(str(point.socket))
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError, TimeoutError):
        connection.close()  # no process, or none that accepts
        return None
    except OSError as error:
        connection.close()
        raise ServerError(f"the {point.role}'s socket '{point.socket}' cannot be used: {error.strerror}") from error
    if (why := peer_credentials.refusal(connection)) is not None:
        connection.close()
        raise ServerError(f"the {point.role}'s socket '{point.socket}' is not used: {why}")
    return connection


def _start_and_connect(point: MeetingPoint, options: tuple[str, ...]) -> socket.socket | None:
    """Start the process and connect to it, unless another one is just starting it.

    One too many ends by itself, so that a lost race costs a process and nothing else. Raises ServerError.
    """
    try:
        starting = os.open(point.lock.with_suffix(".starting"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServerError(f"'{point.lock.parent}' cannot be written to: {error.strerror}") from error
    try:
        fcntl.flock(starting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process = _start(point, options)
        begun = time.monotonic()
        connection = None
        while connection is None and process.poll() is None and time.monotonic() - begun < _START_S:
            time.sleep(0.01)
            connection = _connect(point)
        return connection
    except BlockingIOError:
        return None
    except OSError as error:
        raise ServerError(f"the {point.role} cannot be started: {error.strerror}") from error
    finally:
        os.close(starting)


def _start(point: MeetingPoint, options: tuple[str, ...]) -> subprocess.Popen[bytes]:
    # One numerical thread: what it computes by itself is small, and the other cores belong to the models.
    environment = {**os.environ, "PYTHONPATH": search_path(), "OPENBLAS_NUM_THREADS": "1"}
    environment[VARIABLE] = str(point.socket.parent)  # it runs in another folder
    with point.log.open("ab") as log:
        process = subprocess.Popen(
            [
                *python_command(_MODULES[point.role]),
                *("--device", point.device, "--linger-s", str(LINGER_S)),
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=point.log.parent,
            env=environment,
            # Linux gives each session an equal share of a core, whatever its threads' niceness ("autogroups"). The
            # scheduler gains by that; lanes with less priority than tritonserver's threads must stay in its session.
            start_new_session=point.role == "scheduler",
        )
    _started[:] = [p for p in (*_started, process) if p.poll() is None]
    return process


def _only_one(lock: Path) -> bool:
    """True where this process got the lock. It keeps it until it ends: a successor binds the socket after that."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return True
