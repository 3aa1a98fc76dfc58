"""A model's connections to an engine process while that lives: where it is open, where it is watched, and its lanes."""

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
    """The batches of one lane, one at a time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._busy = threading.Lock()
        self._outbox, self._inbox = RegionWriter(), RegionReader()

    def run(self, core: int | None, feeds: Feeds, outputs: Sequence[str]) -> BatchResult:
        """See `Engine.run`. Raises ConnectionError where the engine process is gone."""
        with self._busy:
            tensors, region = self._outbox.pack(feeds)
            self._channel.send(RunBatch(core, tensors, tuple(outputs)), region)
            reply, region = self._channel.receive(decode_finished)
            if isinstance(reply, BatchFailed):
                raise EngineError(reply.reason)
            if region is not None:
                self._inbox.map(region)
            # Copied: the answers are sent while the lane runs its next batch, whose outputs will lie there.
            found = [np.array(array) for array in self._inbox.arrays(reply.outputs).values()]
            return BatchResult(found, reply.exec_ns, reply.transfer_in_ns, reply.transfer_out_ns)

    def close(self) -> None:
        """A batch that is under way ends with ConnectionError."""
        self._channel.hang_up()
        with self._busy:
            self._channel.close()


class ModelSession:
    """One life of the model in an engine process. Raises ConnectionError where that is over."""

    def __init__(self, channel: Channel, watch: HangWatch, opened: ModelOpened) -> None:
        self.opened = opened
        self._channel, self._watch = channel, watch
        self._lock = threading.Lock()
        self._lanes: dict[int, LaneConnection] = {}
        self._over = False

    def lane(self, number: int) -> LaneConnection:
        """Its connection, made when it is first asked for."""
        with self._lock:
            if self._over:
                raise ConnectionResetError("the engine process is gone")
            lane = self._lanes.get(number)
            if lane is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                lane = self._lanes[number] = LaneConnection(Channel(ours))
                self._channel.send(AddLane(number), theirs.detach())
            return lane

    def wait_for_its_end(self) -> None:
        """Until the engine process is gone or `hang_up`; it never says anything more."""
        with suppress(ConnectionError, ChannelError):
            self._channel.receive(decode_opened)

    def hang_up(self) -> None:
        """Let `wait_for_its_end` return."""
        self._channel.hang_up()

    def close(self) -> None:
        """Batches that are under way end with ConnectionError."""
        with self._lock:
            self._over = True
        for lane in self._lanes.values():
            lane.close()
        self._channel.close()
        self._watch.close()
