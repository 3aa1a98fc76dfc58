"""Probes of the servers: a tritonserver that is stopped, or gone, while its devices' schedulers still publish.

They are asked, too, which models they hold, of which some are no device's: ensembles, and those of other backends. And
their addresses are looked up, since Envoy is told numbers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import msgspec

from backend.route_process.endpoints_file import Address, Server
from backend.route_process.subscriptions import say

INTERVAL_S = 0.5
TIMEOUT_S = 1.0
"""Together less than the two seconds within which a server that is gone has to be left out."""
INDEX_EVERY = 4
"""Probes per question which models there are."""
_LIVE, _INDEX = "GET /v2/health/live", "POST /v2/repository/index"
_REQUEST = "{what} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
_BODY_BYTES_MAX = 4 << 20


class IndexedModel(msgspec.Struct, frozen=True):
    """A model that is ready, as Triton's repository index has it."""

    name: str
    version: str = ""


class Probe:
    """One server. is_live: it answered last time. http, grpc: its addresses as Envoy has them. models: that are ready
    there, as last told.
    """

    def __init__(self, server: Server, gone: Callable[[str], None]) -> None:
        self.server = server
        self.models: frozenset[IndexedModel] = frozenset()
        self._asked = 0
        self.is_live = True  # until it has been asked
        self.http, self.grpc = str(server.http_address()), str(server.grpc_address())
        self._gone = gone

    async def run(self) -> None:
        """Ask again and again until cancelled."""
        while True:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    trouble = await self._ask()
            except TimeoutError:
                trouble = f"does not answer within {TIMEOUT_S:g} s"
            except OSError as error:
                trouble = f"cannot be reached: {getattr(error, 'strerror', None) or error}"
            if bool(trouble) == self.is_live:
                say(f"endpoint '{self.server.name}': {self.server.http} {trouble or 'is live'}")
            self.is_live = not trouble
            if trouble:
                self._gone(self.server.name)
            await asyncio.sleep(INTERVAL_S)

    def holds(self, model: str, version: str) -> bool:
        """True where a model is ready. version: "" for any."""
        return any(one.name == model and version in ("", one.version) for one in self.models)

    async def _ask(self) -> str:
        """Ask whether it is live. Returns what it says instead, "" where it is."""
        address = self.server.http_address()
        self.http, self.grpc = await _numeric(address), await _numeric(self.server.grpc_address())
        if self._asked % INDEX_EVERY == 0:
            status, body = await _answer(address, _INDEX, '{"ready":true}')
            if _is_ok(status):
                try:
                    self.models = frozenset(msgspec.json.decode(body, type=list[IndexedModel]))
                except msgspec.MsgspecError as error:
                    return f"has no index of models that this router understands: {error}"
        else:
            status, _ = await _answer(address, _LIVE)
        if not _is_ok(status):
            self._asked = 0
            return f"answers {status[:100]!r}"
        self._asked += 1
        return ""


def _is_ok(status: str) -> bool:
    return status.split(" ")[1:2] == ["200"]


async def _answer(address: Address, what: str, body: str = "") -> tuple[str, bytes]:
    """Ask by HTTP. Returns the status line and the body."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(_REQUEST.format(what=what, host=address, length=len(body), body=body).encode())
        status = (await reader.readline()).decode(errors="replace").strip()
        length = 0
        while (line := (await reader.readline()).strip()) and _is_ok(status):
            name, _, value = line.decode(errors="replace").partition(":")
            if name.lower() == "content-length" and value.strip().isdecimal():
                length = min(int(value), _BODY_BYTES_MAX)
        return status, await reader.readexactly(length) if length else b""
    except (ValueError, asyncio.IncompleteReadError) as error:  # a line that never ends; an end in the middle
        raise ConnectionError(f"it does not speak HTTP as Triton does: {error}") from None
    finally:
        writer.transport.abort()


async def _numeric(address: Address) -> str:
    """Look an address up: IPv4 where there is both, as Envoy is told to."""
    if address.is_numeric:
        return str(address)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    found.sort(key=lambda one: one[0] != socket.AF_INET)
    return str(Address(str(found[0][4][0]), address.port))
