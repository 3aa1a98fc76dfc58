"""Sees to it that an engine process that stands still is ended, so that it is noticed and replaced like one that died.

A thread of that process, which runs no batches, answers pings on a connection of its own. It may be kept from it for
long by what does not give Python's lock away, such as TensorRT reading a plan; but then the process uses the CPU.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

from backend.engine_host.channel import Channel, ProtocolError
from backend.engine_host.messages import Ping, decode_pong

PING_EVERY_S = 1.0
WAIT_S = 1.0
ANSWER_WAITS = 8
"""After so many waits in a row in which it neither answered nor used the CPU, the process is ended. Waits are counted,
not time: where the whole machine stood still it is one wait, however long."""
_CREDENTIALS = struct.Struct("3i")
_log = logging.getLogger("isochrone")


class Watch:
    """Of one life of the engine process. Owns the connection."""

    def __init__(self, connection: socket.socket) -> None:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self._pid, _, _ = _CREDENTIALS.unpack(credentials)
        self._channel = Channel(connection)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="isochrone-engine-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._closing.set()
        self._channel.hang_up()
        self._thread.join(timeout=5.0)
        self._channel.close()

    def _run(self) -> None:
        with suppress(ConnectionError, ProtocolError):
            while self._lives() and not self._closing.wait(PING_EVERY_S):
                pass

    def _lives(self) -> bool:
        """False where it was ended here. Raises ConnectionError where it is gone, or this is closed."""
        self._channel.send(Ping())
        idle_waits, used = 0, _cpu_ticks(self._pid)
        while not self._channel.wait(WAIT_S):
            before, used = used, _cpu_ticks(self._pid)
            idle_waits = idle_waits + 1 if used == before else 0
            if idle_waits == ANSWER_WAITS:
                self._end()
                return False
        self._channel.receive(decode_pong)
        return True

    def _end(self) -> None:
        _log.warning("isochrone: engine process %d gives no sign of life; it is ended", self._pid)
        if self._pid > 0:  # 0: it lives in a container whose processes cannot be seen from here
            with suppress(ProcessLookupError):  # another model's process saw it too
                os.kill(self._pid, signal.SIGKILL)


def _cpu_ticks(pid: int) -> int:
    """CPU time that a process has used, in the kernel's units; 0 where it cannot be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # user and system, see proc(5)
