"""Connects a model's process to its device's scheduler, starting one where none runs."""

from __future__ import annotations

import socket

from backend.device_process import LINGER_S, Start, connect_or_start
from backend.runtime_dir import meeting_point


def connect_or_spawn(device: str, lanes: int, timeout_s: float) -> socket.socket:
    """A connection to the scheduler of `device`. Raises ServerError where none answers in `timeout_s`."""
    options = ("--device", device, "--lanes", str(lanes), "--linger-s", str(LINGER_S))
    start = Start("backend.scheduler_process.process", options, own_session=True)
    return connect_or_start(meeting_point(device), start, timeout_s)
