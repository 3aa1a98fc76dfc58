"""A scheduler's process that publishes its device's state: to good subscribers, and beside bad ones."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from backend.fleet.snapshot import DeviceSnapshot, Refused, Subscribe, decode, encode
from backend.runtime_dir import meeting_point
from backend.scheduler_process.state_address import TOKEN_VARIABLE, VARIABLE
from backend.server.ports import free_ports
from tests.fakes.fake_model import PATIENCE_S, FakeModel, eventually, pending, scheduler_pid

pytestmark = pytest.mark.usefixtures("runtime_dir")
HELLO = encode(Subscribe(1))
_devices = itertools.count()


@pytest.fixture
def device() -> str:
    """One of its own, and so a scheduler with this test's environment."""
    return f"device{next(_devices)}"


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    (found,) = free_ports(1)
    monkeypatch.setenv(VARIABLE, f"127.0.0.1:{found}")
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    return found


def connected(port: int) -> socket.socket:
    """A connection, once the publisher listens."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nobody listens"
            time.sleep(0.01)


def snapshots(connection: socket.socket) -> Iterator[DeviceSnapshot]:
    with connection.makefile("rb") as lines:
        while line := lines.readline():
            found = decode(line)
            assert isinstance(found, DeviceSnapshot)
            yield found


def test_a_subscriber_follows_what_waits_and_runs(port: int, device: str) -> None:
    with FakeModel(device=device) as model, connected(port) as connection:
        connection.sendall(HELLO)
        following = snapshots(connection)
        first = next(following)
        assert (first.device, first.lanes, [each.name for each in first.models]) == (device, 2, ["m"])
        model.fill()
        waiting = model.submit(pending(), pending(), pending())
        busy = next(each for each in following if each.models[0].waiting_requests == 3)
        assert (busy.models[0].arrivals, len(busy.running)) == (5, 2)
        assert busy.backlog_ns > 0
        eventually(lambda: model.dispatcher.gauges()["isochrone_backlog_ms"] > 0)
        assert model.dispatcher.gauges()["isochrone_waiting_requests"] == 3
        assert model.dispatcher.gauges()["isochrone_running_batches"] == 2
        model.gate.set()
        model.wait_for(*waiting)
        idle = next(each for each in following if not each.running)
        assert (idle.backlog_ns, idle.models[0].waiting, idle.models[0].arrivals) == (0, {}, 5)
        eventually(lambda: set(model.dispatcher.gauges().values()) == {0})
        assert {each.publisher for each in (first, busy, idle)} == {first.publisher}


def test_gauges_are_right_while_no_scheduler_answers(port: int, device: str) -> None:
    with FakeModel(device=device) as model, connected(port) as connection:
        connection.sendall(HELLO)
        publisher = next(snapshots(connection)).publisher
        model.fill()
        waiting = model.submit(pending(), pending())
        eventually(lambda: model.dispatcher.gauges()["isochrone_backlog_ms"] > 0)
        os.kill(scheduler_pid(device), signal.SIGKILL)
        eventually(lambda: not model.dispatcher._connected)
        assert model.dispatcher.gauges()["isochrone_waiting_requests"] == 2
        assert model.dispatcher.gauges()["isochrone_backlog_ms"] > 0
        model.gate.set()
        model.wait_for(*waiting)
        eventually(lambda: set(model.dispatcher.gauges().values()) == {0})
        eventually(lambda: model.dispatcher._connected)
        with connected(port) as again:
            again.sendall(HELLO)
            assert next(snapshots(again)).publisher != publisher


def test_no_subscriber_ends_or_holds_up_the_scheduler(port: int, device: str) -> None:
    """Silent ones, deaf ones, garbage, a megabyte, and more than are taken."""
    with FakeModel(device=device) as model, ExitStack() as open_:
        pid = scheduler_pid(device)
        for i in range(80):
            connection = open_.enter_context(connected(port))
            with suppress(OSError):
                connection.sendall((b"", HELLO, b"\xff\x00\n", b"x" * (1 << 20))[i % 4])
        for _ in range(100):
            model.wait_for(*model.submit(pending()))
        assert scheduler_pid(device) == pid
        assert not model.rejects
        assert all(batch.launch is not None for batch in model.done.values())
    with FakeModel("other", device=device), connected(port) as connection:
        connection.sendall(HELLO)
        assert next(snapshots(connection)).device == device


@pytest.mark.parametrize(
    ("named", "sentence"),
    [("0.0.0.0:8003", TOKEN_VARIABLE), ("nonsense", "must be HOST:PORT")],
)
def test_where_nothing_can_be_published_the_scheduler_serves_on(
    monkeypatch: pytest.MonkeyPatch, device: str, named: str, sentence: str
) -> None:
    monkeypatch.setenv(VARIABLE, named)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with FakeModel(device=device) as model:
        model.wait_for(*model.submit(pending()))
        log = meeting_point(device).log.read_text()
    assert "the device's state is not published" in log
    assert sentence in log


def test_a_token_is_asked_for_and_in_no_log(port: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "a-secret")
    with FakeModel(device=device), connected(port) as connection, connected(port) as good:
        connection.sendall(encode(Subscribe(1, "a-guess")))
        with connection.makefile("rb") as lines:
            assert isinstance(decode(lines.readline()), Refused)
        good.sendall(encode(Subscribe(1, "a-secret")))
        assert next(snapshots(good)).device == device
        log = meeting_point(device).log.read_text()
    assert "a-secret" not in log
    assert "a-guess" not in log
