"""Tells a process that stands still, so that it can be ended and replaced like one that died.

One that is only kept from answering, as by what does not give Python's lock away, uses the CPU meanwhile.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
from contextlib import suppress
from pathlib import Path

WAIT_S = 1.0
WAITS = 8
"""After so many waits in a row in which it neither answered nor used the CPU, the process is ended. Waits are counted,
not time: where the whole machine stood still it is one wait, however long."""
_CREDENTIALS = struct.Struct("3i")
_log = logging.getLogger("isochrone")


class Standstill:
    """Counts what was waited for a process in vain. role: what it is called in the log."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._pid = self._ticks = self._idle_waits = 0

    def answered(self) -> None:
        """It lives."""
        self._idle_waits = 0

    def waited(self, connection: socket.socket) -> bool:
        """For its answer there, for `WAIT_S`, in vain; whether it was ended for it now."""
        pid = _peer(connection)
        ticks = _cpu_ticks(pid)
        self._idle_waits = self._idle_waits + 1 if (pid, ticks) == (self._pid, self._ticks) else 0
        self._pid, self._ticks = pid, ticks
        if self._idle_waits < WAITS:
            return False
        self._idle_waits = 0
        _log.warning("isochrone: %s %d gives no sign of life; it is ended", self._role, pid)
        if pid > 0:  # 0: it lives in a container whose processes cannot be seen from here
            with suppress(ProcessLookupError):  # another model's process saw it too
                os.kill(pid, signal.SIGKILL)
        return True


def _peer(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(credentials)[0]
    return pid


def _cpu_ticks(pid: int) -> int:
    """CPU time that a process has used, in the kernel's units; 0 where it cannot be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # user and system, see proc(5)
