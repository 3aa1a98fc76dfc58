"""Subscriptions: what is learned, what is said of publishers that are none, and that they are made again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from backend.fleet.snapshot import MAX_LINE_BYTES, DeviceSnapshot, Refused
from backend.route_process import subscriptions
from backend.route_process.endpoints_file import Server
from backend.route_process.subscriptions import Subscription
from backend.server.ports import free_ports
from tests.fakes.asynchronous import until
from tests.fakes.fleets import model_state, snapshot_of
from tests.fakes.publishers import FakePublisher, Subscriber, publishing


def snapshot(sequence: int) -> DeviceSnapshot:
    return snapshot_of([model_state("m")], sequence=sequence)


class Told:
    """What a subscription tells the router."""

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.lost: list[tuple[str, str]] = []

    def observe(self, _: str, found: DeviceSnapshot) -> None:
        self.sequences.append(found.sequence)

    def lose(self, server: str, device: str) -> None:
        self.lost.append((server, device))


@asynccontextmanager
async def subscribed(address: str, told: Told, devices: int = 1, **server: Any) -> Any:
    one = Subscription(Server("a", "h:1", "h:2", (address,), **server), address, devices, told.observe, told.lose)
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30.0))


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(subscriptions, "_AGAIN_S", 0.01)
    monkeypatch.setattr(subscriptions, "_AGAIN_MAX_S", 0.02)
    yield


def test_snapshots_are_handed_on_with_the_token_in_the_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "secret")

    async def scenario() -> None:
        told = Told()
        async with publishing(lambda s: s.send(snapshot(1))) as publisher:
            async with subscribed(publisher.address, told, token_env="A_TOKEN") as one:
                await until(lambda: told.sequences == [1])
                assert one.trouble == ""
                publisher.subscribers[0].send(snapshot(2))
                await until(lambda: told.sequences == [1, 2])
            assert publisher.subscribers[0].hello.token == "secret"

    run(scenario)


def test_a_subscription_is_made_again_when_it_ends() -> None:
    async def scenario() -> None:
        told = Told()

        def once(subscriber: Subscriber) -> None:
            subscriber.send(snapshot(len(told.sequences) + 1))
            subscriber.close()

        async with publishing(once) as publisher, subscribed(publisher.address, told):
            await until(lambda: len(told.sequences) >= 3)
        assert told.lost[:2] == [("a", "gpu-0")] * 2

    run(scenario)


def test_a_subscription_waits_for_a_publisher_that_is_not_there_yet() -> None:
    async def scenario() -> None:
        told = Told()
        (port,) = free_ports(1)
        async with subscribed(f"127.0.0.1:{port}", told) as one:
            await until(lambda: "nothing listens" in one.trouble)
            assert one.trouble.endswith("does that server publish its state (--state-port)?")
            async with publishing(lambda s: s.send(snapshot(1)), port):
                await until(lambda: told.sequences == [1])

    run(scenario)


def test_of_many_snapshots_at_once_the_newest_counts() -> None:
    async def scenario() -> None:
        told = Told()

        def many(subscriber: Subscriber) -> None:
            for sequence in range(1, 1001):
                subscriber.send(snapshot(sequence))

        async with publishing(many) as publisher, subscribed(publisher.address, told, devices=1_000_000):
            await until(lambda: told.sequences[-1:] == [1000])
        assert len(told.sequences) < 100

    run(scenario)


def test_a_snapshot_that_comes_in_pieces_is_one() -> None:
    async def scenario() -> None:
        told = Told()
        data = msgspec.json.encode(snapshot(1)) + b"\n" + msgspec.json.encode(snapshot(2)) + b"\n"
        async with publishing(lambda _: None) as publisher, subscribed(publisher.address, told):
            await until(lambda: bool(publisher.subscribers))
            for i in range(0, len(data), 97):
                publisher.subscribers[0].send_bytes(data[i : i + 97])
                await asyncio.sleep(0)
            await until(lambda: told.sequences[-1:] == [2])

    run(scenario)


@pytest.mark.parametrize(
    ("misbehave", "sentence"),
    [
        (lambda s: s.send(Refused("the token is wrong")), "refuses: the token is wrong"),
        (lambda s: s.send_bytes(b"HTTP/1.1 400 Bad Request\r\n"), "is not the state of an Isochrone"),
        (lambda s: s.send_bytes(b'{"type":"snapshot","protocol":99}\n'), "protocol 99"),
        (lambda s: s.send_bytes(b"x" * (MAX_LINE_BYTES + 10)), "is no device's state, which has at most 256000"),
        (lambda s: (s.send_bytes(b"SSH-2.0-"), s.close()), "is not the state of an Isochrone"),
        (lambda s: s.close(), "closed the connection"),
    ],
    ids=["refused", "http", "protocol", "endless", "cut off", "closed"],
)
def test_a_publisher_that_is_none_is_told_in_words(
    misbehave: Callable[[Subscriber], None], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        told = Told()
        async with publishing(misbehave) as publisher, subscribed(publisher.address, told) as one:
            await until(lambda: sentence in one.trouble)
            await until(lambda: len(publisher.subscribers) >= 3)
            assert publisher.address in one.trouble
        assert told.sequences == []
        assert told.lost == []

    run(scenario)
    said = [line for line in capsys.readouterr().err.splitlines() if sentence in line]
    assert len(said) == 1, "it is said once, however often it is tried"
    assert said[0].startswith("isochrone: endpoint 'a': ")


@pytest.mark.parametrize(
    "misbehave",
    [
        lambda s: s.send(Refused("protocol 1 is not spoken here, only 2")),
        lambda s: s.send_bytes(b'{"type":"snapshot","protocol":2,"of":"another shape"}\n'),
    ],
    ids=["which refuses", "which is refused"],
)
def test_beside_a_server_of_another_release_the_others_are_followed(
    misbehave: Callable[[Subscriber], None], capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        told, of_other = Told(), Told()
        async with (
            publishing(misbehave) as other,
            publishing(lambda s: s.send(snapshot(1))) as ours,
            subscribed(other.address, of_other) as refused,
            subscribed(ours.address, told) as followed,
        ):
            await until(lambda: len(other.subscribers) >= 3)
            ours.subscribers[0].send(snapshot(2))
            await until(lambda: told.sequences == [1, 2])
            assert "protocol 2" in refused.trouble or "only 2" in refused.trouble
            assert followed.trouble == ""
        assert of_other.sequences == []

    run(scenario)
    said = [line for line in capsys.readouterr().err.splitlines() if "protocol" in line]
    assert len(said) == 1
    assert "1" in said[0] and "2" in said[0]


def test_a_publisher_that_falls_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "SILENCE_S", 0.05)

    async def scenario() -> None:
        told = Told()
        async with publishing(lambda s: s.send(snapshot(1))) as publisher, subscribed(publisher.address, told):
            await until(lambda: len(publisher.subscribers) >= 2)
        assert told.lost[:1] == [("a", "gpu-0")]

    run(scenario)


def test_a_token_that_is_missing_is_said_and_nothing_is_sent() -> None:
    async def scenario() -> None:
        publisher: FakePublisher
        async with (
            publishing(lambda s: s.send(snapshot(1))) as publisher,
            subscribed(publisher.address, Told(), token_env="NOT_SET_ANYWHERE") as one,
        ):
            await until(lambda: "NOT_SET_ANYWHERE, which is not set" in one.trouble)
            assert publisher.subscribers == []

    run(scenario)
