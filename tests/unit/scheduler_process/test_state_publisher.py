"""Subscribers of a device's state over loopback: what they get, and what those that misbehave cannot do."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from backend.fleet.snapshot import (
    FLEET_PROTOCOL,
    MAX_HELLO_BYTES,
    DeviceSnapshot,
    MachineFacts,
    ModelState,
    Refused,
    Subscribe,
    decode,
    encode,
)
from backend.scheduler_process import state_publisher
from backend.scheduler_process.state_address import StateAddress
from backend.scheduler_process.state_publisher import SUBSCRIBERS_MAX, StatePublisher
from tests.fakes.fake_model import PATIENCE_S, eventually

TOKEN = "a secret"
HELLO = encode(Subscribe(FLEET_PROTOCOL, TOKEN))


def snapshot(sequence: int, models: int = 1) -> DeviceSnapshot:
    found = [
        ModelState(f"m{i}", "1", 8, 3, {"1": 2}, 2, [(1, 10**6), (8, 4 * 10**6)], 1.0, 0.2, 0.4, None, 1)
        for i in range(models)
    ]
    return DeviceSnapshot(FLEET_PROTOCOL, "me", sequence, 1, "cpu", 2, MachineFacts("m", emulated=False), 0, found, [])


@pytest.fixture
def publisher() -> Iterator[StatePublisher]:
    """Listens on a port that was free."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    made = StatePublisher(StateAddress("127.0.0.1", port, TOKEN))
    made.start()
    eventually(lambda: made.port is not None)
    yield made
    made.close()


class Subscriber:
    """A plain client."""

    def __init__(self, publisher: StatePublisher, hello: bytes = HELLO, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", publisher.port))
        self.file = self.socket.makefile("rb")
        if hello:
            self.socket.sendall(hello)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def next(self) -> DeviceSnapshot | Refused:
        return decode(self.file.readline())

    def sequence(self) -> int:
        found = self.next()
        assert isinstance(found, DeviceSnapshot)
        return found.sequence

    def refusal(self) -> str:
        """The sentence; nothing follows it."""
        found = self.next()
        assert isinstance(found, Refused)
        assert self.file.read() == b""
        return found.reason

    def closed(self) -> bool:
        try:
            while self.file.read1():
                pass
        except ConnectionError:
            pass
        return True


def test_a_subscriber_gets_what_is_offered(publisher: StatePublisher) -> None:
    with Subscriber(publisher) as subscriber:
        eventually(lambda: publisher.subscribers == 1)
        for sequence in (1, 2, 3):
            publisher.offer(snapshot(sequence))
            assert subscriber.sequence() == sequence
    eventually(lambda: publisher.subscribers == 0)


def test_a_new_subscriber_gets_the_newest_at_once(publisher: StatePublisher) -> None:
    with Subscriber(publisher) as first:
        eventually(lambda: publisher.subscribers == 1)
        publisher.offer(snapshot(1))
        assert first.sequence() == 1
        with Subscriber(publisher) as second:
            assert second.sequence() == 1


def test_the_mailbox_has_one_slot(publisher: StatePublisher) -> None:
    with Subscriber(publisher) as subscriber:
        eventually(lambda: publisher.subscribers == 1)
        for sequence in range(1, 5_001):
            publisher.offer(snapshot(sequence))
        found = [subscriber.sequence()]
        while found[-1] < 5_000:
            found.append(subscriber.sequence())
        assert found == sorted(set(found))


def test_a_hello_may_come_in_pieces(publisher: StatePublisher) -> None:
    with Subscriber(publisher, b"") as subscriber:
        for i in range(0, len(HELLO), 7):
            subscriber.socket.sendall(HELLO[i : i + 7])
        eventually(lambda: publisher.subscribers == 1)


BAD = {
    "another protocol": (encode(Subscribe(2, TOKEN)), "protocol 2 is not spoken here, only 1"),
    "a wrong token": (encode(Subscribe(1, "a guess")), "the token is not"),
    "no token": (encode(Subscribe(1)), "the token is not"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "is no"),
    "noise": (b"\xff\x00\x01\n", "is no"),
    "nested without end": (b"[" * 4000 + b"\n", "is no"),
    "an empty line": (b"\n", "is no"),
    "a long line": (b"x" * (MAX_HELLO_BYTES + 1), "at most"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_hello_is_refused_with_a_sentence(publisher: StatePublisher, kind: str) -> None:
    sent, sentence = BAD[kind]
    with Subscriber(publisher, sent) as subscriber:
        reason = subscriber.refusal()
    assert sentence in reason
    assert TOKEN not in reason
    with Subscriber(publisher) as good:
        eventually(lambda: publisher.subscribers == 1)
        publisher.offer(snapshot(1))
        assert good.sequence() == 1


def test_a_line_of_a_megabyte_is_cut_off(publisher: StatePublisher) -> None:
    with Subscriber(publisher, b"") as subscriber:
        try:
            subscriber.socket.sendall(b"x" * (1 << 20))
        except ConnectionError:
            return
        assert subscriber.closed()


def test_silence_is_not_waited_for(publisher: StatePublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_publisher, "HELLO_S", 0.2)
    with Subscriber(publisher, b"") as subscriber:
        assert "no message came within 0.2 s" in subscriber.refusal()


def test_a_subscriber_that_goes_on_talking_is_dropped(publisher: StatePublisher) -> None:
    with Subscriber(publisher) as subscriber:
        eventually(lambda: publisher.subscribers == 1)
        subscriber.socket.sendall(b"more")
        assert subscriber.closed()
    eventually(lambda: publisher.subscribers == 0)


def test_more_after_the_hello_is_one_word_too_many(publisher: StatePublisher) -> None:
    with Subscriber(publisher, HELLO + b"{}\n") as subscriber:
        assert subscriber.closed()


def test_one_that_does_not_read_is_dropped_and_the_others_get_all(
    publisher: StatePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_publisher, "BLOCKED_S", 0.3)
    with Subscriber(publisher, receive_bytes=4096) as slow, Subscriber(publisher) as good:
        eventually(lambda: publisher.subscribers == 2)
        sequence = 0
        deadline = time.monotonic() + PATIENCE_S
        while publisher.subscribers == 2 and time.monotonic() < deadline:
            sequence += 1
            publisher.offer(snapshot(sequence, models=400))
            assert good.sequence() == sequence
        assert publisher.subscribers == 1
        publisher.offer(snapshot(sequence + 1))
        assert good.sequence() == sequence + 1
        assert slow.closed()


def test_one_that_reads_late_gets_whole_lines(publisher: StatePublisher) -> None:
    with Subscriber(publisher, receive_bytes=4096) as late, Subscriber(publisher) as good:
        eventually(lambda: publisher.subscribers == 2)
        for sequence in range(1, 30):
            publisher.offer(snapshot(sequence, models=500))
            assert good.sequence() == sequence
        found = [late.sequence()]
        publisher.offer(snapshot(30))
        while found[-1] < 29:
            if found[-1] >= 5:
                publisher.offer(snapshot(30))
            found.append(late.sequence())
            if found[-1] == 30:
                break
        assert found == sorted(found)


def test_only_so_many_subscribers_are_taken(publisher: StatePublisher) -> None:
    with ExitStack() as open_:
        for _ in range(SUBSCRIBERS_MAX):
            open_.enter_context(Subscriber(publisher))
        eventually(lambda: publisher.subscribers == SUBSCRIBERS_MAX)
        with Subscriber(publisher, b"") as one_more:
            assert f"{SUBSCRIBERS_MAX} subscribers are connected" in one_more.refusal()
    eventually(lambda: publisher.subscribers == 0)
    with Subscriber(publisher):
        eventually(lambda: publisher.subscribers == 1)


def test_a_flood_of_connections_is_taken_a_few_at_a_time(publisher: StatePublisher) -> None:
    with Subscriber(publisher) as good:
        eventually(lambda: publisher.subscribers == 1)
        for sequence in range(1, 101):
            with Subscriber(publisher, b"x"):
                pass
            publisher.offer(snapshot(sequence))
        found = good.sequence()
        while found < 100:
            found = good.sequence()


def test_a_port_that_is_taken_is_waited_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(state_publisher, "_RETRY_S", 0.05)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        publisher = StatePublisher(StateAddress("127.0.0.1", port))
        with caplog.at_level(logging.WARNING):
            publisher.start()
            eventually(lambda: "cannot be published" in caplog.text)
    eventually(lambda: publisher.port == port)
    assert caplog.text.count("cannot be published") == 1
    with Subscriber(publisher, encode(Subscribe(1))):
        eventually(lambda: publisher.subscribers == 1)
    publisher.close()


def test_closing_ends_all_connections(publisher: StatePublisher) -> None:
    with Subscriber(publisher) as one, Subscriber(publisher, b"") as other:
        eventually(lambda: publisher.subscribers == 1)
        publisher.close()
        assert one.closed()
        assert other.closed()


def test_a_snapshot_that_cannot_be_encoded_costs_nothing_else(
    publisher: StatePublisher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(state_publisher, "_RETRY_S", 0.05)
    with Subscriber(publisher) as subscriber:
        eventually(lambda: publisher.subscribers == 1)
        broken: Any = [object()]
        publisher.offer(DeviceSnapshot(1, "me", 1, 1, "cpu", 2, MachineFacts("m", emulated=False), 0, broken, []))
        eventually(lambda: "could not be published" in caplog.text)
        publisher.offer(snapshot(2))
        assert subscriber.sequence() == 2
