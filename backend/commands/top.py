"""`isochrone top`: a device's published state on a terminal, twice a second. Changes nothing there."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from rich.live import Live
from rich.text import Text

from backend.errors import ConfigError
from backend.fleet.snapshot import DeviceSnapshot
from backend.progress_bar import console
from backend.scheduler_process.state_address import TOKEN_VARIABLE, VARIABLE, host_and_port
from backend.top.frame import frame
from backend.top.snapshot_stream import SnapshotStream

_REDRAW_S = 0.5
_RATES_OVER = 10
"""Frames that arrivals are averaged over."""


def run_top(state: str | None, *, once: bool) -> None:
    """Draw until interrupted; once, or where the output is no terminal: print one frame.

    state: HOST:PORT, None: as the environment has it. Raises ConfigError, a sentence.
    """
    named, name = (os.environ.get(VARIABLE), VARIABLE) if state is None else (state, "--state")
    if not named:
        raise ConfigError(f"no device's state is named; name one with --state HOST:PORT, or set {VARIABLE}")
    host, port = host_and_port(named, name)
    token = os.environ.get(TOKEN_VARIABLE, "")
    try:
        token.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{TOKEN_VARIABLE} is no text in UTF-8") from None
    out = console()
    viewer = Viewer(lambda: SnapshotStream(host, port, token))
    try:
        first = viewer.first()
        if once or not out.is_terminal:
            out.print("\n".join(frame(first)), highlight=False, markup=False, soft_wrap=True)
            return
        with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False, screen=True) as live:
            while True:
                live.update(viewer.drawn(), refresh=True)
                time.sleep(_REDRAW_S)
                viewer.read()
    finally:
        viewer.close()


class Viewer:
    """Keeps the newest snapshots, and connects again where the publisher is gone."""

    def __init__(self, connect: Callable[[], SnapshotStream]) -> None:
        self._connect = connect
        self._stream: SnapshotStream | None = connect()
        self._seen: deque[DeviceSnapshot] = deque(maxlen=_RATES_OVER)

    def first(self) -> DeviceSnapshot:
        """Wait for the first snapshot. Raises ConfigError where none comes."""
        assert self._stream is not None
        self._seen.append(self._stream.first())
        return self._seen[-1]

    def read(self) -> None:
        """Take the newest snapshot, if there is one. Raises ConfigError where a publisher refuses."""
        if self._stream is None:
            with suppress(ConfigError):  # it is tried again
                self._stream = self._connect()
            return
        try:
            found = self._stream.newest()
        except ConnectionError:
            self.close()
            return
        if found is not None:
            self._seen.append(found)

    def drawn(self) -> Text:
        """Draw the newest snapshot."""
        lines = frame(self._seen[-1], self._seen[0])
        if self._stream is None:
            lines.insert(0, "THE SCHEDULER IS GONE: this was its last state; connecting again")
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")

    def close(self) -> None:
        """Disconnect."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
