"""A model's connections to an engine process while that lives: where it is open, where it is watched, and its lanes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from backend.engine_process.client.watch import Watch
from backend.engine_process.wire.channel import Channel, ProtocolError
from backend.engine_process.wire.messages import AddLane, Failed, Opened, Run, decode_finished, decode_opened
from backend.engine_process.wire.regions import Inbox, Outbox
from backend.engines.protocol import Ran
from backend.errors import EngineError
from backend.tensors import Feeds


class Lane:
    """The batches of one lane, one at a time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._busy = threading.Lock()
        self._outbox, self._inbox = Outbox(), Inbox()

    def run(self, core: int | None, feeds: Feeds, outputs: Sequence[str]) -> Ran:
        """See `Engine.run`. Raises ConnectionError where the engine process is gone."""
        with self._busy:
            tensors, region = self._outbox.pack(feeds)
            self._channel.send(Run(core, tensors, tuple(outputs)), region)
            reply, region = self._channel.receive(decode_finished)
            if isinstance(reply, Failed):
                raise EngineError(reply.reason)
            if region is not None:
                self._inbox.map(region)
            # Copied: the answers are sent while the lane runs its next batch, whose outputs will lie there.
            found = [np.array(array) for array in self._inbox.arrays(reply.outputs).values()]
            return Ran(found, reply.exec_ns, reply.transfer_in_ns, reply.transfer_out_ns)

    def close(self) -> None:
        """A batch that is under way ends with ConnectionError."""
        self._channel.hang_up()
        with self._busy:
            self._channel.close()


class Session:
    """One life of the model in an engine process. Raises ConnectionError where that is over."""

    def __init__(self, channel: Channel, watch: Watch, opened: Opened) -> None:
        self.opened = opened
        self._channel, self._watch = channel, watch
        self._lock = threading.Lock()
        self._lanes: dict[int, Lane] = {}
        self._over = False

    def lane(self, number: int) -> Lane:
        """Its connection, made when it is first asked for."""
        with self._lock:
            if self._over:
                raise ConnectionResetError("the engine process is gone")
            lane = self._lanes.get(number)
            if lane is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                lane = self._lanes[number] = Lane(Channel(ours))
                self._channel.send(AddLane(number), theirs.detach())
            return lane

    def wait_for_its_end(self) -> None:
        """Until the engine process is gone or `hang_up`; it never says anything more."""
        with suppress(ConnectionError, ProtocolError):
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
