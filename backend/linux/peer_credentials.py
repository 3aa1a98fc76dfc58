"""Credentials of the process at the other end of a Unix socket, as the kernel tells them, and who is taken."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

_CREDENTIALS = struct.Struct("3i")
"""`struct ucred`, see unix(7)."""
_ROOT = 0


class PeerCredentials(NamedTuple):
    """Credentials when the connection was made. pid: 0 for a process that is not visible from this one's container."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> PeerCredentials:
    """Process at the other end. Raises OSError."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return PeerCredentials(*_CREDENTIALS.unpack(found))


def refusal(connection: socket.socket) -> str | None:
    """Sentence for a peer that is neither this process's user nor root, who could have all that is here anyway; None
    for one that is.
    """
    try:
        uid = peer_of(connection).uid
    except OSError as error:
        return f"the user at the other end of a socket cannot be told: {error.strerror}"
    own = os.geteuid()
    if uid in (own, _ROOT):
        return None
    return (
        f"a process of user {uid} is at the other end of a socket of user {own}: both must be the same user's "
        "(in containers, `runAsUser` or `--user`)"
    )
