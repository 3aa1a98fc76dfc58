"""Detects a process that hangs, so that it can be killed and replaced like one that died.

A process that is only kept from answering, as by a call that holds Python's lock, uses the CPU meanwhile: it is spared.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

from backend.linux.peer_credentials import peer_of

WAIT_S = 1.0
WAITS = 8
"""A process hangs after so many waits in a row in which it neither answered nor used the CPU. Waits are counted, not
time: where the whole machine was suspended it is one wait, however long."""
_log = logging.getLogger("isochrone")


class HangDetector:
    """Counts unanswered waits for one process. role: its name in the log."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._pid = self._ticks = self._idle_waits = 0

    def answered(self) -> None:
        """Start counting anew: the process answered."""
        self._idle_waits = 0

    def hangs_after_wait(self, connection: socket.socket) -> bool:
        """Count a wait of `WAIT_S` for the peer's answer; True where the peer hangs, by `WAITS` such waits."""
        pid = peer_of(connection).pid
        ticks = _cpu_ticks(pid)
        self._idle_waits = self._idle_waits + 1 if (pid, ticks) == (self._pid, self._ticks) else 0
        self._pid, self._ticks = pid, ticks
        return self._idle_waits >= WAITS

    def kill(self) -> None:
        """Send SIGKILL to the process of the last wait, and start counting anew."""
        self._idle_waits = 0
        _log.warning("isochrone: %s %d hangs and is killed", self._role, self._pid)
        if self._pid > 0:  # 0: it runs in a container whose processes are not visible from here
            with suppress(ProcessLookupError):  # another model's process killed it first
                os.kill(self._pid, signal.SIGKILL)


def _cpu_ticks(pid: int) -> int:
    """CPU time that a process has used, in the kernel's units; 0 where the process is not visible."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # user and system, see proc(5)
