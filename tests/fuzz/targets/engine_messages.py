"""Messages between a model's process and the engine process, and the places of tensors in shared memory.

The input is one packet; where it is a batch to run, or one that has ended, its tensors are looked up in a region.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import cache
from typing import Any

from backend.engine_process.wire.channel import Channel, ChannelError
from backend.engine_process.wire.messages import (
    BatchFinished,
    RunBatch,
    decode_finished,
    decode_opened,
    decode_pong,
    decode_request,
    decode_run,
)
from backend.engine_process.wire.regions import RegionReader

FORMAT = "msgpack"
_DECODERS: tuple[Callable[[bytes], Any], ...] = (
    *(decode_request, decode_run, decode_opened),
    *(decode_finished, decode_pong),
)
_TEXTS = b"\x93\xa1a\xa2bc\xa0"


@cache
def _ends() -> tuple[socket.socket, Channel, RegionReader]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptor = os.memfd_create("isochrone-fuzz")
    os.write(descriptor, _TEXTS.ljust(4096, b"\xff"))
    region = RegionReader()
    region.map(descriptor)
    return ours, Channel(theirs), region


def check(data: bytes) -> None:
    """A message, or `ChannelError`; arrays within the region, or `ValueError`."""
    ours, channel, region = _ends()
    data = data[: 1 << 15] or b"\0"
    for decode in _DECODERS:
        ours.send(data)
        try:
            message, descriptor = channel.receive(decode)
        except ChannelError:
            continue
        assert descriptor is None
        places = message.inputs if isinstance(message, RunBatch) else ()
        places = message.outputs if isinstance(message, BatchFinished) else places
        try:
            arrays = region.arrays(places)
        except ValueError as error:
            assert str(error)
            continue
        for array in arrays.values():
            array.tobytes()
