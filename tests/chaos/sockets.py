"""Cuts and floods of other processes' sockets, by the kernel's own means: this user's processes only."""

from __future__ import annotations

import ctypes
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_PIDFD_GETFD = 438  # Linux 5.6
_PAUSE_S = 0.002


def descriptors(pid: int) -> Iterator[int]:
    """The descriptors of sockets that a process has open."""
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(entry.readlink()).startswith("socket:"):
                    yield int(entry.name)


def cut(pid: int, wanted: Callable[[socket.socket], bool]) -> int:
    """Shut down the connected sockets of a process that are `wanted`; returns how many that were."""
    process = os.pidfd_open(pid)
    try:
        return sum(_shut_down(process, descriptor, wanted) for descriptor in descriptors(pid))
    finally:
        os.close(process)


def _shut_down(process: int, descriptor: int, wanted: Callable[[socket.socket], bool]) -> bool:
    ours = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, descriptor, 0)
    if ours < 0:
        return False
    with socket.socket(fileno=ours) as connection, suppress(OSError):
        connection.getpeername()  # raises where it listens
        if wanted(connection):
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False


def is_packet(connection: socket.socket) -> bool:
    """A connection between this project's processes."""
    return connection.family == socket.AF_UNIX and connection.type == socket.SOCK_SEQPACKET


def is_tcp(connection: socket.socket) -> bool:
    """A connection of a client, a subscriber or Envoy."""
    return connection.family in (socket.AF_INET, socket.AF_INET6)


def connection_for(address: str | tuple[str, int]) -> socket.socket:
    """A socket to be connected to an address, a path of the runtime folder or HOST and PORT."""
    if isinstance(address, str):
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return socket.socket(socket.AF_INET)


class Flood:
    """Connections to an address, each with garbage in it, as many as are taken, until it is stopped."""

    def __init__(self, address: str | tuple[str, int], connections_max: int, seed: int = 0) -> None:
        self._address, self._connections_max = address, connections_max
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._open: list[socket.socket] = []
        self.made = 0
        self._thread = threading.Thread(target=self._run, name="chaos-flood", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close them all."""
        self._stopping.set()
        self._thread.join()
        for connection in self._open:
            connection.close()

    def _run(self) -> None:
        while not self._stopping.wait(_PAUSE_S):
            with suppress(OSError):
                self._connect()
            if len(self._open) > self._connections_max:
                self._open.pop(0).close()

    def _connect(self) -> None:
        connection = connection_for(self._address)
        self._open.append(connection)
        connection.settimeout(0.05)
        connection.connect(self._address)
        connection.setblocking(False)
        self.made += 1
        if self.made % 3:  # every third says nothing
            connection.send(self._garbage())

    def _garbage(self) -> bytes:
        kind = self._random.randrange(4)
        if kind == 0:
            return self._random.randbytes(self._random.randrange(1, 60_000))
        if kind == 1:
            return b"[" * 20_000
        if kind == 2:
            return b'{"type":"join","model":"' + b"x" * 1000 + b'"}\n'
        return b"\n" * 100
