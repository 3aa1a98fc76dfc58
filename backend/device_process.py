"""Connects to a device's scheduler or engine process, starts it where none runs, and keeps it the only one.

There is one of each per device and runtime folder. Knows nothing of their messages.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backend.errors import ServerError
from backend.linux import peer_credentials
from backend.runtime_dir import VARIABLE, MeetingPoint, Role, meeting_point
from profiler.child import python_command, search_path

LINGER_S = 3.0
"""Time for which a process that was started here outlives its last connection."""
_MODULES: dict[Role, str] = {
    "scheduler": "backend.scheduler_process.process",
    "engine process": "backend.engine_process.process",
}
LOOK_S = 0.5
"""Between two looks whether the process is still found in the runtime folder, and two attempts to accept a connection
while there is no descriptor for one."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_STANDARD_ERROR = 2
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


class DeviceListener:
    """Socket at which the one process of `point` accepts connections, and that process's place in the runtime folder.

    socket: replaced by `take_place`.
    """

    def __init__(self, point: MeetingPoint, lock: int) -> None:
        """lock: descriptor of the locked file. Raises OSError."""
        self._point, self._lock = point, lock
        self._short, self._said = False, ""
        self._bind()

    def accept(self) -> socket.socket | None:
        """Next connection; None where it is another user's, or gone already.

        Raises TimeoutError as the socket does, and OSError where no descriptor or memory is left: the connection waits,
        so that the socket is no reason to come back before a while.
        """
        try:
            connection, _ = self.socket.accept()
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno in _EXHAUSTED:
                if not self._short:  # once: those that wait are tried again and again
                    _log.warning("no connection can be accepted for now: %s", error.strerror)
                self._short = True
                raise
            _log.warning("a connection could not be accepted: %s", error.strerror)
            return None
        self._short = False
        if (why := peer_credentials.refusal(connection)) is not None:
            _log.warning("a connection is refused: %s", why)
            connection.close()
            return None
        return connection

    def in_place(self) -> bool:
        """True while others find this process in the runtime folder: its lock and its socket are there."""
        try:
            return _is(self._point.lock, self._lock) and _same(self._point.socket.stat(), self._bound)
        except OSError:
            return False

    def take_place(self) -> bool:
        """Put the lock and the socket back, as after somebody removed the folder; False where another process has the
        place by now. Where it cannot be had, as on a full disk, nothing changes.
        """
        old = self.socket
        try:
            meeting_point(self._point.device, self._point.role)  # makes the folder
            if not _is(self._point.lock, self._lock):
                lock = _locked(self._point.lock)
                if lock is None:
                    return False
                os.close(self._lock)
                self._lock = lock
            self._bind()
            old.close()
            _log_again(self._point.log)
            self._say("were gone, and are back")
        except (OSError, ServerError) as error:
            self._say(f"are gone, and cannot be put back: {error}")
        return True

    def _say(self, what: str) -> None:
        if what != self._said:  # once: it is tried again and again
            self._said = what
            _log.warning("the %s's files in '%s' %s", self._point.role, self._point.lock.parent, what)

    def close(self) -> None:
        """Close and remove the socket; the lock is kept until this process ends: a successor binds after that."""
        if self.in_place():
            self._point.socket.unlink(missing_ok=True)
        self.socket.close()

    def _bind(self) -> None:
        self._point.socket.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(str(self._point.socket))
            self._point.socket.chmod(0o600)
            listener.listen(128)
            self._bound = self._point.socket.stat()
        except BaseException:
            listener.close()
            raise
        self.socket = listener


@contextmanager
def only_listener(point: MeetingPoint) -> Iterator[DeviceListener | None]:
    """Listener of the one process of `point`; None where another process is that one. Raises ServerError."""
    try:
        lock = _locked(point.lock)
        listener = None if lock is None else DeviceListener(point, lock)
    except OSError as error:
        raise ServerError(f"the {point.role} cannot listen at '{point.socket}': {error.strerror}") from error
    if listener is None:
        yield None
        return
    try:
        yield listener
    finally:
        listener.close()


def _connect(point: MeetingPoint) -> socket.socket | None:
    connection = None
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(_CONNECT_S)
        connection.connect(str(point.socket))
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError, TimeoutError):
        assert connection is not None
        connection.close()  # no process, or none that accepts
        return None
    except OSError as error:
        if connection is not None:
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


def _locked(lock: Path) -> int | None:
    """Descriptor of the locked file; None where another process holds it. Kept open, it is held until this one ends."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    with suppress(OSError):  # for people only, so that a full disk is no reason not to serve
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _is(path: Path, descriptor: int) -> bool:
    """True where the file at a path is the one that is open."""
    try:
        return _same(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _log_again(log: Path) -> None:
    """Write to a new log where the one that standard error goes to was removed."""
    if os.fstat(_STANDARD_ERROR).st_nlink == 0:
        with log.open("ab") as file:
            os.dup2(file.fileno(), _STANDARD_ERROR)
