"""A connection to a device's published state, read now and then: only the newest snapshot is decoded."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from backend.errors import ConfigError
from backend.fleet.snapshot import FLEET_PROTOCOL, MAX_LINE_BYTES, DeviceSnapshot, Refused, Subscribe, decode, encode

FIRST_S = 5.0
"""A publisher sends a snapshot at least each half a second."""
_CONNECT_S = 5.0
_RECEIVE_BYTES = 1 << 18
_AT_ONCE_BYTES = 1 << 24


class SnapshotStream:
    """Connected on creation. Raises ConfigError, a sentence, where nothing that publishes a state is there."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self._connection = socket.create_connection((host, port), timeout=_CONNECT_S)
        except OSError as error:
            raise ConfigError(
                f"no device's state is published at {self._name}: {error.strerror or error}; "
                "`isochrone serve --state-port PORT` publishes it"
            ) from None
        self._unread = b""
        with suppress(OSError):  # a publisher that refuses says why
            self._connection.sendall(encode(Subscribe(FLEET_PROTOCOL, token)))

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def first(self) -> DeviceSnapshot:
        """Wait for a snapshot. Raises ConfigError where none comes."""
        deadline_s = time.monotonic() + FIRST_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                found = self.newest(left_s)
            except ConnectionError:
                raise ConfigError(f"what listens at {self._name} sent no device's state and closed") from None
            if found is not None:
                return found
        raise ConfigError(f"what listens at {self._name} sent no device's state within {FIRST_S:g} s")

    def newest(self, patience_s: float = 0.0) -> DeviceSnapshot | None:
        """The newest of the snapshots that came since the last call; None: none did.

        patience_s: time to wait for some bytes. Raises ConnectionError where the publisher is gone, ConfigError where
        it refuses or says what cannot be understood.
        """
        closed = self._receive(patience_s)
        lines, ended, rest = self._unread.rpartition(b"\n")
        if not ended and len(rest) > MAX_LINE_BYTES:
            raise ConfigError(f"what listens at {self._name} sends no device's state: a line without an end")
        if not ended:
            if closed:
                raise ConnectionError
            return None
        self._unread = rest
        try:
            message = decode(lines.rpartition(b"\n")[2])
        except ValueError as error:
            raise ConfigError(f"{self._name}: {error}") from None
        if isinstance(message, Refused):
            raise ConfigError(f"{self._name} refuses: {message.reason}")
        return message

    def _receive(self, patience_s: float) -> bool:
        """Take what came; True where the publisher has closed."""
        self._connection.settimeout(patience_s)
        received = 0
        while received < _AT_ONCE_BYTES:
            try:
                part = self._connection.recv(_RECEIVE_BYTES)
            except (BlockingIOError, TimeoutError):
                return False
            except OSError:
                return True
            if not part:
                return True
            received += len(part)
            self._unread += part
            self._connection.setblocking(False)
        return False
