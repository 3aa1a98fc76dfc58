"""Probes of servers: one that does not answer is gone, whatever is wrong, until it answers."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from backend.route_process import probes
from backend.route_process.endpoints_file import Server
from backend.route_process.probes import Probe
from backend.server.ports import free_ports
from tests.fakes.asynchronous import until

INDEX = b'[{"name":"m","version":"1","state":"READY"},{"name":"n","version":"2","state":"READY"}]'
LIVE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(INDEX), INDEX)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "INTERVAL_S", 0.005)


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


@contextmanager
def serving(answer: bytes, port: int = 0) -> Iterator[int]:
    """Answer every request with these bytes; without any, never."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):
                self.rfile.readline()
                self.wfile.write(answer)
                if not answer:
                    self.rfile.read()

    with _Listener(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def probed(port: int, host: str = "127.0.0.1") -> AsyncIterator[tuple[Probe, list[str]]]:
    gone: list[str] = []
    one = Probe(Server("a", f"{host}:{port}", f"{host}:1", ()), gone.append)
    task = asyncio.create_task(one.run())
    try:
        yield one, gone
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_a_server_is_gone_until_it_answers(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        (port,) = free_ports(1)
        async with probed(port) as (probe, gone):
            await until(lambda: len(gone) >= 3)
            assert not probe.is_live
            with serving(LIVE, port):
                await until(lambda: probe.is_live)
            await until(lambda: not probe.is_live)

    asyncio.run(scenario())
    said = capsys.readouterr().err.splitlines()
    assert ["cannot be reached" in line for line in said] == [True, False, True], "each change is said once"
    assert said[1].endswith("is live")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "answers 'HTTP/1.1 503 Service Unavailable'"),
        (b"SSH-2.0-OpenSSH_9\r\n", "answers 'SSH-2.0-OpenSSH_9'"),
        (b"\xff\n", "answers"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "has no index of models that this router understands"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", "it does not speak HTTP as Triton does"),
        (b"x" * 100_000, "it does not speak HTTP as Triton does"),
        (b"", "does not answer within 0.02 s"),
    ],
)
def test_a_server_that_says_something_else_is_gone(
    answer: bytes, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not answer:
        monkeypatch.setattr(probes, "TIMEOUT_S", 0.02)

    async def scenario() -> None:
        async with probed(port) as (probe, gone):
            await until(lambda: bool(gone))
            assert not probe.is_live

    with serving(answer) as port:
        asyncio.run(scenario())
    assert sentence in capsys.readouterr().err


def test_a_server_tells_which_models_are_ready() -> None:
    async def scenario() -> None:
        async with probed(port) as (probe, _):
            await until(lambda: bool(probe.models))
            assert probe.holds("m", "")
            assert probe.holds("n", "2")
            assert not probe.holds("n", "1")
            assert not probe.holds("o", "")

    with serving(LIVE) as port:
        asyncio.run(scenario())


def test_envoy_is_told_numbers_in_the_place_of_names() -> None:
    async def scenario() -> None:
        async with probed(port, "localhost") as (probe, _):
            await until(lambda: probe.http == f"127.0.0.1:{port}")
            assert probe.grpc == "127.0.0.1:1"

    with serving(LIVE) as port:
        asyncio.run(scenario())


def test_a_name_that_is_none_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with probed(1, "no-such-host.invalid") as (probe, _):
            await until(lambda: not probe.is_live)

    asyncio.run(scenario())
    assert "endpoint 'a': no-such-host.invalid:1 cannot be reached: " in capsys.readouterr().err
