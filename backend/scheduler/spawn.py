"""How a model's process reaches its device's scheduler, starting one where none runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from backend.errors import ServerError
from backend.scheduler.runtime_dir import MeetingPoint, meeting_point

LINGER_S = 3.0
"""How long a scheduler that was started here outlives its last connection."""
_START_S = 5.0
_CONNECT_S = 1.0
_started: list[subprocess.Popen[bytes]] = []
"""Kept until reaped: a killed scheduler must not stay behind as a zombie of its model's process."""
_CODE_ROOT = Path(__file__).resolve().parents[2]


def connect_or_spawn(device: str, lanes: int, timeout_s: float) -> socket.socket:
    """A connection to the scheduler of `device`. Raises ServerError where none answers in `timeout_s`."""
    point = meeting_point(device)
    deadline = time.monotonic() + timeout_s
    while True:
        connection = _connect(point) or _spawn(device, lanes, point)
        if connection is not None:
            return connection
        if time.monotonic() > deadline:
            raise ServerError(
                f"no scheduler answers at '{point.socket}' within {timeout_s:g} s; its log is '{point.log}'"
            )
        time.sleep(0.01)


def _connect(point: MeetingPoint) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(_CONNECT_S)
    try:
        connection.connect(str(point.socket))
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError, TimeoutError):
        connection.close()  # nobody there, or nobody who accepts
        return None
    except OSError as error:
        connection.close()
        raise ServerError(f"the scheduler's socket '{point.socket}' cannot be used: {error.strerror}") from error
    return connection


def _spawn(device: str, lanes: int, point: MeetingPoint) -> socket.socket | None:
    """Start a scheduler and connect to it, unless another process is just starting one.

    One too many ends by itself, so that a lost race costs a process and nothing else. Raises ServerError.
    """
    try:
        starting = os.open(point.lock.with_suffix(".starting"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServerError(f"'{point.lock.parent}' cannot be written to: {error.strerror}") from error
    try:
        fcntl.flock(starting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process = _start(device, lanes, point)
        begun = time.monotonic()
        connection = None
        while connection is None and process.poll() is None and time.monotonic() - begun < _START_S:
            time.sleep(0.01)
            connection = _connect(point)
        return connection
    except BlockingIOError:
        return None
    except OSError as error:
        raise ServerError(f"the scheduler's process cannot be started: {error.strerror}") from error
    finally:
        os.close(starting)


def _start(device: str, lanes: int, point: MeetingPoint) -> subprocess.Popen[bytes]:
    arguments = [_python(), "-m", "backend.scheduler.process", "--device", device, "--lanes", str(lanes)]
    # One numerical thread: its matrices are seven wide, and the other cores belong to the models.
    environment = {**os.environ, "PYTHONPATH": str(_CODE_ROOT), "OPENBLAS_NUM_THREADS": "1"}
    with point.log.open("ab") as log:
        process = subprocess.Popen(
            [*arguments, "--linger-s", str(LINGER_S)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=point.log.parent,
            env=environment,
            start_new_session=True,
        )
    _started[:] = [p for p in (*_started, process) if p.poll() is None]
    return process


def _python() -> str:
    """The interpreter to run the scheduler with; inside Triton's stub `sys.executable` may be empty."""
    found = sys.executable or shutil.which("python3")
    if not found:
        raise ServerError("no python3 is on PATH, so the scheduler's process cannot be started")
    return found
