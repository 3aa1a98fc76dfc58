"""Blocking channel of messages and descriptors over a connected SEQPACKET socket; one thread at a time uses an end."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from backend.engine_process.wire.messages import EngineMessage, encode

_PACKET_BYTES_MAX = 1 << 16
"""Longer messages, such as those of a model with a thousand inputs, are sent as a file in memory."""
_LONG_BYTES_MAX = 1 << 24
_LONG = b"\xc1"
"""Packet in place of such a message; no MessagePack message begins so."""

T = TypeVar("T")


class ChannelError(Exception):
    """The other end sent an invalid message."""


class Channel:
    """One end of a connection. Owns its socket."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        self._socket = connection

    def fileno(self) -> int:
        """Descriptor of the socket; −1 once it is closed."""
        return self._socket.fileno()

    def send(self, message: EngineMessage, descriptor: int | None = None) -> None:
        """Send a message and take over the descriptor. Raises ConnectionError where the other end is closed."""
        descriptors = [] if descriptor is None else [descriptor]
        try:
            packet = encode(message)
            if len(packet) > _PACKET_BYTES_MAX:
                descriptors.append(_in_memory(packet))
                packet = _LONG
            if descriptors:
                socket.send_fds(self._socket, [packet], descriptors)
            else:
                self._socket.send(packet)
        except OSError as error:
            raise ConnectionAbortedError(str(error)) from error
        finally:
            _close(descriptors)

    def receive(self, decode: Callable[[bytes], T]) -> tuple[T, int | None]:
        """Receive a message and the descriptor that came with it, which is the caller's.

        Raises ConnectionError where the other end is closed, ChannelError where the message cannot be read.
        """
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._socket, _PACKET_BYTES_MAX, 2)
        except OSError as error:
            raise ConnectionAbortedError(str(error)) from error
        try:
            if packet == _LONG and descriptors:
                packet = _from_memory(descriptors.pop())
            message = decode(packet)
        except (OSError, RecursionError, ValueError) as error:  # msgspec's errors are ValueErrors
            _close(descriptors)
            if not packet:
                raise ConnectionResetError("the other end is closed") from error
            raise ChannelError(str(error)) from error
        if len(descriptors) > 1:
            _close(descriptors)
            raise ChannelError(f"{len(descriptors)} descriptors came with one message")
        return message, descriptors[0] if descriptors else None

    def wait(self, timeout_s: float) -> bool:
        """Wait for a message or the end of the connection; False where neither came in time."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout_s * 1e3))

    def hang_up(self) -> None:
        """Wake threads that wait here or at the other end; `close` is still due."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; no thread is using it."""
        self._socket.close()


def _in_memory(packet: bytes) -> int:
    descriptor = os.memfd_create("isochrone-message")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(packet)
    return descriptor


def _from_memory(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        file.seek(0)  # the sender's position is the file's
        packet = file.read(_LONG_BYTES_MAX + 1)
    if len(packet) > _LONG_BYTES_MAX:
        raise ValueError(f"a message has at most {_LONG_BYTES_MAX} bytes")
    return packet


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
