"""Starts a command that gets SIGTERM when the process that started it dies, however it dies.

A file of its own, run by path in a bare interpreter: a `preexec_fn` would do the same, but it forks a process in which
gRPC's threads may be running. The kernel counts the death of the *thread* that started the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tethered(argv: Sequence[str]) -> list[str]:
    """Command line that runs `argv` under the same process id, tied to the calling process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def _main(parent_pid: int, argv: list[str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the line above
        raise SystemExit(1)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
