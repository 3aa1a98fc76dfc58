"""Subscriptions to the devices' states: one connection per state address, made again whenever it ends.

Of what came in meanwhile only the newest snapshot is decoded, at a pace that bounds what all of them cost together.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from backend.errors import ConfigError
from backend.fleet.snapshot import (
    FLEET_PROTOCOL,
    MAX_LINE_BYTES,
    DeviceSnapshot,
    Subscribe,
    decode,
    encode,
)
from backend.route_process.endpoints_file import Server, parse_address

_SHARE_MAX, _PACE_MAX_S = 0.25, 0.4
"""Of a core that all devices' snapshots may take: beyond it each is taken in less often, but at least so often."""
SILENCE_S = 1.5
"""A publisher says something at least every half second."""
_CONNECT_S = 1.0
_AGAIN_S, _AGAIN_MAX_S = 0.25, 2.0
"""After a connection ended, doubled each time in vain."""

Observe = Callable[[str, DeviceSnapshot], None]
Lost = Callable[[str, str], None]


def say(sentence: str) -> None:
    """Log a sentence."""
    print(f"isochrone: {sentence}", file=sys.stderr, flush=True)


class Subscription:
    """One state address of a server. observe: called with the server's name and a snapshot; lost: with its name and the
    device's, whenever a connection that gave snapshots has ended.

    trouble: what is wrong now, a sentence; "" where snapshots come. devices: whose snapshots share the core with these.
    """

    def __init__(self, server: Server, state: str, devices: int, observe: Observe, lost: Lost) -> None:
        self.server, self.state = server, state
        self.trouble = "not connected yet"
        self.snapshot: DeviceSnapshot | None = None
        self._devices, self._observe, self._lost = devices, observe, lost

    async def run(self) -> None:
        """Stay subscribed until cancelled."""
        again_s = _AGAIN_S
        while True:
            had = self.snapshot
            try:
                trouble = await self._connection()
            except (ConfigError, OSError, TimeoutError) as error:
                trouble = self._words(error)
            again_s = _AGAIN_S if self.snapshot is not had else min(2 * again_s, _AGAIN_MAX_S)
            self._stop(trouble)
            await asyncio.sleep(again_s)

    async def _connection(self) -> str:
        """Follow one connection to its end. Returns why it ended."""
        loop = asyncio.get_running_loop()
        hello = encode(Subscribe(FLEET_PROTOCOL, self.server.token()))
        address = parse_address(self.state)
        async with asyncio.timeout(_CONNECT_S):
            transport, lines = await loop.create_connection(
                lambda: _NewestLine(loop, self._devices, self._line), address.host, address.port
            )
        try:
            transport.write(hello)
            while not lines.ended.done():
                before = lines.received_bytes
                await asyncio.wait((lines.ended,), timeout=SILENCE_S)
                if lines.received_bytes == before and not lines.ended.done():
                    return f"{self.state} has said nothing for {SILENCE_S:g} s"
            return lines.ended.result() or f"{self.state} closed the connection"
        finally:
            transport.abort()

    def _line(self, line: bytes) -> str:
        """Take one message. Returns why no other one is wanted, "" to go on."""
        try:
            message = decode(line)
        except ValueError as error:
            return f"{self.state} is not the state of an Isochrone that this router understands: {error}"
        if not isinstance(message, DeviceSnapshot):
            return f"{self.state} refuses: {message.reason}"
        if self.trouble:
            say(f"endpoint '{self.server.name}': {self.state} publishes {message.device}")
        self.trouble = ""
        self.snapshot = message
        self._observe(self.server.name, message)
        return ""

    def _stop(self, trouble: str) -> None:
        if trouble != self.trouble:
            say(f"endpoint '{self.server.name}': {trouble}")
        if not self.trouble and self.snapshot is not None:
            self._lost(self.server.name, self.snapshot.device)
        self.trouble = trouble

    def _words(self, error: Exception) -> str:
        if isinstance(error, ConfigError):
            return str(error)
        if isinstance(error, TimeoutError):
            return f"{self.state} does not answer within {_CONNECT_S:g} s"
        if isinstance(error, ConnectionRefusedError):
            return f"nothing listens at {self.state}; does that server publish its state (--state-port)?"
        return f"{self.state} cannot be reached: {getattr(error, 'strerror', None) or error}"


class _NewestLine(asyncio.Protocol):
    """Hands on the newest whole line, at a pace that leaves time to the other devices, and the last one before the end.

    ended: set to a reason of ours, or "" where the other side closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, devices: int, take: Callable[[bytes], str]) -> None:
        self.ended: asyncio.Future[str] = loop.create_future()
        self.received_bytes = 0
        self._loop, self._devices, self._take = loop, devices, take
        self._rest = b""
        self._newest: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        whole, feed, rest = data.rpartition(b"\n")
        if feed:
            line = whole.rpartition(b"\n")[2]
            self._newest = line if b"\n" in whole else self._rest + line
            self._rest = rest
            if self._timer is None:
                self._hand_on()
        else:
            self._rest += data
        if len(self._rest) > MAX_LINE_BYTES:
            self._end(self._take(self._rest))  # which says that it is too long

    def connection_lost(self, exc: Exception | None) -> None:
        self._hand_on()
        if self._rest and not self.ended.done():
            self._end(self._take(self._rest))
        self._end(f"the connection broke: {exc}" if exc else "")

    def _hand_on(self) -> None:
        self._timer = None
        line, self._newest = self._newest, None
        if line is None or self.ended.done():
            return
        began_s = self._loop.time()
        if reason := self._take(line):
            self._end(reason)
        else:
            pace_s = (self._loop.time() - began_s) * self._devices / _SHARE_MAX
            self._timer = self._loop.call_later(min(pace_s, _PACE_MAX_S), self._hand_on)

    def _end(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.ended.done():
            self.ended.set_result(reason)
