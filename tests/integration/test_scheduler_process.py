"""The scheduler's process: connections it accepts and refuses, state it keeps, and that it is the only one."""

from __future__ import annotations

import os
import signal
import socket
import threading

import msgspec
import pytest

from backend.device_process import connect_or_start
from backend.runtime_dir import meeting_point
from backend.scheduler.messages import (
    MAX_MESSAGE_BYTES,
    Adopt,
    AdoptedBatch,
    Arrive,
    Cancel,
    Decided,
    Finish,
    Ping,
    Refused,
    Request,
    Welcome,
    decode_reply,
    encode,
)
from backend.scheduler_process.process import serve
from tests.fakes.builders import join, profile
from tests.fakes.fake_model import (
    PATIENCE_S,
    FakeModel,
    decided_by_a_scheduler,
    eventually,
    pending,
    scheduler_pid,
    signal_scheduler,
    until_connected,
)

pytestmark = pytest.mark.usefixtures("runtime_dir")


def connected(device: str = "cpu") -> socket.socket:
    connection = connect_or_start(meeting_point(device), PATIENCE_S, "--lanes", "2")
    connection.settimeout(PATIENCE_S)
    return connection


def reply_to(connection: socket.socket, packet: bytes) -> object:
    connection.send(packet)
    return decode_reply(connection.recv(MAX_MESSAGE_BYTES))


_JOIN = join(profile(1.0), lanes=2)
_NAN = msgspec.msgpack.encode(["join", 1, "m", "1", 8, None, [[1], [[10, float("nan"), 0.0, 0.0]]], True, False])
_GARBAGE = {
    "noise": b"\xff\x00\x13garbage",
    "another message": msgspec.msgpack.encode(["no such thing", 1]),
    "a word": b"\xa5hello",
    "nested without end": b"\x92\xa4ping" + b"\x91" * 100_000 + b"\xc0",
    "cut short": encode(_JOIN)[:20],
    "longer than a message": encode(Cancel(tuple(range(2**16, 2**16 + 30_000)))),
    "a profile of no numbers": _NAN,
    "an event before the join": encode(Arrive((Request(1, 1, 0, None, 1),))),
    "another protocol": encode(join(profile(1.0), protocol=99)),
}


@pytest.mark.parametrize("kind", _GARBAGE)
def test_a_connection_that_sends_garbage_is_refused_and_the_others_go_on(model: FakeModel, kind: str) -> None:
    pid = scheduler_pid()
    model.fill()
    (waiting,) = model.submit(pending())
    with connected() as connection:
        assert isinstance(reply_to(connection, _GARBAGE[kind]), Refused)
        assert connection.recv(MAX_MESSAGE_BYTES) == b""
    model.gate.set()
    assert model.wait_for(waiting)[0].launch is not None
    assert scheduler_pid() == pid


_IMPOSSIBLE = {
    "join twice": _JOIN,
    "end what does not run": Finish(1_000_000, 5),
    "arrive twice": Arrive((Request(1, 1, 0, None, 1), Request(1, 1, 0, None, 1))),
    "adopt twice": Adopt((AdoptedBatch(-1, 1, 0), AdoptedBatch(-1, 1, 0))),
    "numbers beyond all bounds": Arrive((Request(1, 1, 2**64 - 1, -(2**63), 1),)),
}


@pytest.mark.parametrize("kind", _IMPOSSIBLE)
def test_a_model_that_says_what_cannot_be_is_refused_and_the_others_go_on(model: FakeModel, kind: str) -> None:
    pid = scheduler_pid()
    with connected() as connection:
        assert isinstance(reply_to(connection, encode(join(profile(1.0), rejects=True))), Welcome)
        connection.send(encode(_IMPOSSIBLE[kind]))
        while packet := connection.recv(MAX_MESSAGE_BYTES):
            assert isinstance(decode_reply(packet), Refused)
    assert decided_by_a_scheduler(model)
    assert scheduler_pid() == pid


def test_a_connection_that_says_nothing_disturbs_nobody(model: FakeModel) -> None:
    with connected():
        assert decided_by_a_scheduler(model)
    assert decided_by_a_scheduler(model)


def test_a_ping_is_answered(model: FakeModel) -> None:
    with connected() as connection:
        assert isinstance(reply_to(connection, encode(_JOIN)), Welcome)
        assert isinstance(reply_to(connection, encode(Ping())), Decided)
    assert decided_by_a_scheduler(model)


def test_connections_at_the_same_time_meet_one_scheduler() -> None:
    device, connections = "gpu-7", []

    def connect() -> None:
        connections.append(connected(device))

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sources = [reply_to(connection, encode(_JOIN)) for connection in connections]
    assert sorted(s.source for s in sources if isinstance(s, Welcome)) == [1, 2, 3, 4]
    for connection in connections:
        connection.close()


def test_a_late_request_is_rejected_though_nothing_happens() -> None:
    with FakeModel(rejects=True) as model:
        model.fill()
        (request,) = model.submit(pending(50.0))
        eventually(lambda: request.id in model.rejects)
        assert not model.gate.is_set()
        model.gate.set()


def test_a_scheduler_that_nobody_needs_ends_and_takes_its_socket_along() -> None:
    point = meeting_point("spare")
    serve(point, 1, linger_s=0.0)
    assert not point.socket.exists()
    serve(point, 1, linger_s=None)  # one runs already, by the lock that this process holds: returns at once
    assert int(point.lock.read_text()) == os.getpid()
    assert os.getpriority(os.PRIO_PROCESS, 0) >= 0  # only a process of its own goes before others


# What outlives it


def test_a_scheduler_that_is_stopped_keeps_what_it_learned(model: FakeModel) -> None:
    for _ in range(20):
        model.wait_for(*model.submit(pending(5_000.0)))
    first = scheduler_pid()
    signal_scheduler(signal.SIGTERM)
    eventually(lambda: not model.dispatcher._connected or scheduler_pid() != first)
    until_connected(model)
    assert decided_by_a_scheduler(model)
    assert meeting_point("cpu").state.stat().st_size > 1_000


def test_a_scheduler_whose_saved_state_is_broken_says_so_and_serves(model: FakeModel) -> None:
    point = meeting_point("cpu")
    first = scheduler_pid()
    signal_scheduler(signal.SIGKILL)
    point.state.write_bytes(b"not a state")
    eventually(lambda: not model.dispatcher._connected or scheduler_pid() != first)
    until_connected(model)
    assert decided_by_a_scheduler(model)
    assert point.state.with_name("cpu.state.broken").read_bytes() == b"not a state"
    assert "is set aside" in point.log.read_text()
