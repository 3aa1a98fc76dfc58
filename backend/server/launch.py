"""`isochrone serve`: runs tritonserver in the foreground, its output untouched on this process's stdout and stderr."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from backend.server.checks import check
from backend.server.command import assemble_command
from backend.server.options import ServeOptions, value_of
from backend.server.paths import temporary_base
from backend.server.tether import tethered

_EXIT_TIMEOUT_S = 30.0
"""Triton's own."""
_EXIT_LEEWAY_S = 5.0


def serve(options: ServeOptions) -> int:
    """Run the server until it ends or this process gets SIGINT, SIGTERM or SIGHUP; returns its exit code.

    Triton answers the requests in flight before it ends, for as long as its exit timeout; a model that is loading may
    delay it, so it is killed soon after that. If this process is killed, the server gets SIGTERM as well.
    """
    check(options)
    with (
        _handled_signals() as received,
        tempfile.TemporaryDirectory(prefix="isochrone-", dir=temporary_base()) as folder,
    ):
        command = assemble_command(options, Path(folder).resolve())
        if received.first is not None:
            return 128 + received.first
        print(f"isochrone: starting {command.argv[0]}", file=sys.stderr, flush=True)
        # A session of its own: Ctrl-C in a terminal reaches the server once, from here, and no stub.
        process = subprocess.Popen(tethered(command.argv), env=command.env, cwd=command.cwd, start_new_session=True)
        received.forward_to(process, _exit_timeout_s(options.extra) + _EXIT_LEEWAY_S)
        code = process.wait()
        received.ended()
        if code != 0:
            command.sweep()
    if code not in (0, received.first and -received.first) and not received.killed:
        print(f"isochrone: tritonserver {_end_of(code)}; its log above says why", file=sys.stderr, flush=True)
    return code if code >= 0 else 128 - code


def _exit_timeout_s(extra: Sequence[str]) -> float:
    try:
        return float(value_of(extra, "--exit-timeout-secs") or _EXIT_TIMEOUT_S)
    except ValueError:  # tritonserver says so itself
        return _EXIT_TIMEOUT_S


def _end_of(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


class _Signals:
    """Forwards the signals of this process to the server, as soon as that runs.

    first: the first signal. killed: the server did not end in time after it.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.killed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._limit_s = 0.0
        self._limit: threading.Timer | None = None

    def forward_to(self, process: subprocess.Popen[bytes], limit_s: float) -> None:
        """Forward to the server. limit_s: time that it may take to end."""
        self._process, self._limit_s = process, limit_s
        if self.first is not None:
            self._send(self.first)

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        """Forward a signal, now or once the server runs."""
        signum = signal.SIGTERM if signum == signal.SIGHUP else signum  # Triton does not handle SIGHUP
        self.first = self.first or signum
        self._send(signum)

    def ended(self) -> None:
        """Stop the clock: the server has ended."""
        if self._limit is not None:
            self._limit.cancel()

    def _send(self, signum: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(signum)
        if self._limit is None:
            self._limit = threading.Timer(self._limit_s, self._kill, (self._process,))
            self._limit.daemon = True
            self._limit.start()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        self.killed = True
        print(
            f"isochrone: tritonserver did not end within {self._limit_s:g} s, its exit timeout and some, so it is "
            "killed; a model whose load does not end keeps it",
            file=sys.stderr,
            flush=True,
        )
        process.kill()


@contextmanager
def _handled_signals() -> Iterator[_Signals]:
    received = _Signals()
    old = {s: signal.signal(s, received.handle) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
