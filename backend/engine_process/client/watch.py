"""Kills an engine process that hangs, so that it is replaced like one that died.

A thread of that process, which runs no batches, answers pings on a connection of its own. It may answer late where a
call holds Python's lock, as TensorRT's reading of a plan does.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from backend.engine_process.wire.channel import Channel, ChannelError
from backend.engine_process.wire.messages import EnginePing, decode_pong
from backend.linux import hang_detector
from backend.linux.hang_detector import HangDetector

PING_EVERY_S = 1.0


class HangWatch:
    """Thread that watches one engine process. Owns the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._channel = connection, Channel(connection)
        self._hang_detector = HangDetector("engine process")
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="isochrone-engine-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._channel.hang_up()
        self._thread.join(timeout=5.0)
        self._channel.close()

    def _run(self) -> None:
        with suppress(ConnectionError, ChannelError):
            while self._lives() and not self._closing.wait(PING_EVERY_S):
                pass

    def _lives(self) -> bool:
        """Ping the process; False where it hung and was killed. Raises ConnectionError where that is closed."""
        self._channel.send(EnginePing())
        while not self._channel.wait(hang_detector.WAIT_S):
            if self._hang_detector.hangs_after_wait(self._connection):
                self._hang_detector.kill()
                return False
        self._channel.receive(decode_pong)
        self._hang_detector.answered()
        return True
