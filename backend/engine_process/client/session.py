"""A model's connections to one engine process: one that keeps it open, one that watches for hangs, one per lane."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from backend.engine_process.client.watch import HangWatch
from backend.engine_process.wire.channel import Channel, ChannelError
from backend.engine_process.wire.messages import (
    AddLane,
    BatchFailed,
    ModelOpened,
    RunBatch,
    decode_finished,
    decode_opened,
)
from backend.engine_process.wire.regions import RegionReader, RegionWriter
from backend.engines.protocol import BatchResult
from backend.errors import EngineError
from backend.tensors import Feeds


class LaneConnection:
    """Connection for the batches of one lane, one at a time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._busy = threading.Lock()
        self._inputs, self._outputs = RegionWriter(), RegionReader()

    def run(self, core: int | None, feeds: Feeds, outputs: Sequence[str]) -> BatchResult:
        """See `Engine.run`. Raises ConnectionError where the engine process is gone."""
        with self._busy:
            tensors, region = self._inputs.pack(feeds)
            self._channel.send(RunBatch(core, tensors, tuple(outputs)), region)
            reply, region = self._channel.receive(decode_finished)
            if isinstance(reply, BatchFailed):
                raise EngineError(reply.reason)
            if region is not None:
                self._outputs.map(region)
            # Copied: responses are sent while the lane runs its next batch, whose outputs overwrite these.
            found = [np.array(array) for array in self._outputs.arrays(reply.outputs).values()]
            return BatchResult(found, reply.exec_ns, reply.transfer_in_ns, reply.transfer_out_ns)

    def close(self) -> None:
        """Close the connection; a batch that is under way ends with ConnectionError."""
        self._channel.hang_up()
        with self._busy:
            self._channel.close()


class ModelSession:
    """A model that is open in one engine process. Raises ConnectionError where that process is gone."""

    def __init__(self, channel: Channel, watch: HangWatch, opened: ModelOpened) -> None:
        self.opened = opened
        self._channel, self._watch = channel, watch
        self._lock = threading.Lock()
        self._lanes: dict[int, LaneConnection] = {}
        self._over = False

    def lane(self, number: int) -> LaneConnection:
        """Connection of a lane, made at its first batch."""
        with self._lock:
            if self._over:
                raise ConnectionResetError("the engine process is gone")
            lane = self._lanes.get(number)
            if lane is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                lane = self._lanes[number] = LaneConnection(Channel(ours))
                self._channel.send(AddLane(number), theirs.detach())
            return lane

    def wait_for_end(self) -> None:
        """Wait until the engine process is gone or `hang_up` is called; no message comes any more."""
        with suppress(ConnectionError, ChannelError):
            self._channel.receive(decode_opened)

    def hang_up(self) -> None:
        """Let `wait_for_end` return."""
        self._channel.hang_up()

    def close(self) -> None:
        """Close all connections; batches that are under way end with ConnectionError."""
        with self._lock:
            self._over = True
        for lane in self._lanes.values():
            lane.close()
        self._channel.close()
        self._watch.close()
