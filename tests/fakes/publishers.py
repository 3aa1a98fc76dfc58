"""A publisher of a device's state, in words of the real messages, that a test may have misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from backend.fleet.snapshot import MAX_HELLO_BYTES, Message, Subscribe, decode_hello, encode


class Subscriber:
    """One connection, as its publisher sees it."""

    def __init__(self, hello: Subscribe, writer: asyncio.StreamWriter) -> None:
        self.hello = hello
        self._writer = writer

    def send(self, message: Message) -> None:
        self._writer.write(encode(message))

    def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self) -> None:
        self._writer.close()


class FakePublisher:
    """subscribers: of the connections so far; on_subscribe is called with each new one."""

    def __init__(self, on_subscribe: Callable[[Subscriber], None]) -> None:
        self.subscribers: list[Subscriber] = []
        self.port = 0
        self._on_subscribe = on_subscribe

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        assert len(line) <= MAX_HELLO_BYTES
        subscriber = Subscriber(decode_hello(line), writer)
        self.subscribers.append(subscriber)
        self._on_subscribe(subscriber)


@asynccontextmanager
async def publishing(on_subscribe: Callable[[Subscriber], None], port: int = 0) -> AsyncIterator[FakePublisher]:
    """Listen on a free port of loopback, or on this one; all connections are closed after."""
    publisher = FakePublisher(on_subscribe)
    server = await asyncio.start_server(publisher.accept, "127.0.0.1", port)
    publisher.port = server.sockets[0].getsockname()[1]
    try:
        yield publisher
    finally:
        server.close()
        for subscriber in publisher.subscribers:
            subscriber.close()
        for _ in range(10):  # connections that were only just made see their end
            await asyncio.sleep(0)
