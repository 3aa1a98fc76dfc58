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
_RETRY_SPAWN_S = 2.0
_started: list[subprocess.Popen[bytes]] = []
"""Kept until reaped: a killed scheduler must not stay behind as a zombie of its model's process."""
_CODE_ROOT = Path(__file__).resolve().parents[2]


def connect_or_spawn(device: str, lanes: int, timeout_s: float) -> socket.socket:
    """A connection to the scheduler of `device`. Raises ServerError where none answers in `timeout_s`."""
    point = meeting_point(device)
    deadline = time.monotonic() + timeout_s
    spawned_at = float("-inf")
    while True:
        connection = _connect(point)
        if connection is not None:
            return connection
        now = time.monotonic()
        if now > deadline:
            raise ServerError(
                f"no scheduler answers at '{point.socket}' within {timeout_s:g} s; its log is '{point.log}'"
            )
        if now - spawned_at > _RETRY_SPAWN_S and _spawn(device, lanes, point):
            spawned_at = now
        time.sleep(0.01)


def _connect(point: MeetingPoint) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(point.socket))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise ServerError(f"the scheduler's socket '{point.socket}' cannot be used: {error.strerror}") from error
    return connection


def _spawn(device: str, lanes: int, point: MeetingPoint) -> bool:
    """Start a scheduler unless another process is just starting one; one too many ends by itself."""
    starting = os.open(point.lock.with_suffix(".starting"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(starting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
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
        begun = time.monotonic()
        while process.poll() is None and not point.socket.exists() and time.monotonic() - begun < _RETRY_SPAWN_S:
            time.sleep(0.01)
        return True
    finally:
        os.close(starting)


def _python() -> str:
    """The interpreter to run the scheduler with; inside Triton's stub `sys.executable` may be empty."""
    found = sys.executable or shutil.which("python3")
    if not found:
        raise ServerError("no python3 is on PATH, so the scheduler's process cannot be started")
    return found
