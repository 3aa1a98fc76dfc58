"""A model's queue between a real scheduler's process and a made-up engine, also where that process dies or hangs."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from backend.errors import ConfigError, EngineError, ServerError
from backend.runtime_dir import VARIABLE, meeting_point
from backend.scheduler.messages import (
    Adopt,
    Arrive,
    Cancel,
    Decided,
    Event,
    Finish,
    Ping,
    Refused,
    Request,
    RunningBatch,
    Welcome,
    decode_reply,
    encode,
)
from backend.scheduler.process import MAX_MESSAGE_BYTES, serve
from backend.scheduler.spawn import connect_or_spawn
from tests.unit.builders import join, profile
from tests.unit.fake_model import PATIENCE_S, FakeModel, eventually, pending

pytestmark = pytest.mark.usefixtures("runtime_dir")


@pytest.fixture
def model() -> Iterator[FakeModel]:
    with FakeModel() as made:
        yield made


def scheduler_pid(device: str = "cpu") -> int:
    return int(meeting_point(device).lock.read_text())


def kill(signal_number: int, device: str = "cpu") -> None:
    os.kill(scheduler_pid(device), signal_number)


def until_connected(*models: FakeModel) -> None:
    eventually(lambda: all(model.dispatcher._connected for model in models))


def decided_by_a_scheduler(model: FakeModel) -> bool:
    (batch,) = model.wait_for(*model.submit(pending(5_000.0)))
    return batch.launch is not None


def test_a_scheduler_that_is_stopped_keeps_what_it_learned(model: FakeModel) -> None:
    for _ in range(20):
        model.wait_for(*model.submit(pending(5_000.0)))
    first = scheduler_pid()
    kill(signal.SIGTERM)
    eventually(lambda: not model.dispatcher._connected or scheduler_pid() != first)
    until_connected(model)
    assert decided_by_a_scheduler(model)
    assert meeting_point("cpu").state.stat().st_size > 1_000


def test_a_scheduler_whose_saved_state_is_broken_says_so_and_serves(model: FakeModel) -> None:
    point = meeting_point("cpu")
    first = scheduler_pid()
    kill(signal.SIGKILL)
    point.state.write_bytes(b"not a state")
    eventually(lambda: not model.dispatcher._connected or scheduler_pid() != first)
    until_connected(model)
    assert decided_by_a_scheduler(model)
    assert point.state.with_name("cpu.state.broken").read_bytes() == b"not a state"
    assert "is set aside" in point.log.read_text()


# A request's way


def test_a_request_runs_as_the_scheduler_says(model: FakeModel) -> None:
    (request,) = model.submit(pending(5_000.0))
    (batch,) = model.wait_for(request)
    assert batch.launch is not None
    assert batch.launch.requests == (request.id,)
    assert (batch.id, batch.lane, batch.launch.solo_ns) == (batch.launch.batch, batch.launch.lane, 1_000_000)
    assert batch.launched_ns >= request.arrival_ns
    assert model.results == {request.id: [[]]}
    assert len(model.dispatcher) == 0


def test_requests_that_wait_together_run_together(model: FakeModel) -> None:
    model.fill()
    requests = model.submit(*[pending(5_000.0) for _ in range(8)])
    assert len(model.dispatcher) == 8
    model.gate.set()
    assert len({batch.id for batch in model.wait_for(*requests)}) <= 2


@pytest.mark.parametrize("error", [EngineError("the model's run failed: x"), RuntimeError("a bug"), MemoryError()])
def test_a_run_that_fails_ends_its_requests_and_the_lane_goes_on(model: FakeModel, error: Exception) -> None:
    model.error = error
    requests = model.submit(*[pending() for _ in range(4)])
    model.wait_for(*requests)
    assert set(model.results.values()) == {error}
    model.error = None
    assert decided_by_a_scheduler(model)


def test_a_waiting_request_can_be_cancelled_once(model: FakeModel) -> None:
    running = model.fill()
    first, second, third = model.submit(*[pending() for _ in range(3)])
    assert model.dispatcher.cancel(second)
    assert not model.dispatcher.cancel(second)
    assert not model.dispatcher.cancel(running[0])
    model.gate.set()
    model.wait_for(first, third)
    assert second.id not in model.ends
    assert not model.dispatcher.cancel(first)


def test_cancelling_races_with_launching_but_each_request_ends_one_way(model: FakeModel) -> None:
    requests = [pending() for _ in range(200)]
    cancelled = []
    for request in requests:
        model.submit(request)
        if model.dispatcher.cancel(request):
            cancelled.append(request.id)
    kept = [r for r in requests if r.id not in cancelled]
    model.wait_for(*kept)
    assert model.ends.keys() == {r.id for r in kept}
    assert decided_by_a_scheduler(model)  # no lane was lost to a batch without requests


def test_a_launch_that_crosses_a_cancellation_frees_its_lane(model: FakeModel) -> None:
    model.fill()
    (request,) = model.submit(pending(group=7))
    send = model.dispatcher._link.send
    model.dispatcher._link.send = lambda event: isinstance(event, Cancel) or send(event)  # type: ignore[method-assign]
    assert model.dispatcher.cancel(request)
    model.gate.set()
    model.wait_for(*[model.submit(pending(5_000.0))[0] for _ in range(10)])
    assert request.id not in model.ends
    assert all(batch.requests for batch in model.started)


def test_a_certain_miss_is_rejected_where_the_model_asks_for_it() -> None:
    with FakeModel(rejects=True) as model:
        model.fill()
        (request,) = model.submit(pending(-1.0))
        model.wait(lambda: request.id in model.rejects)
        assert model.rejects[request.id].predicted_ns > model.rejects[request.id].allowed_ns
        assert len(model.dispatcher) == 0


def test_the_oldest_waiting_requests_are_told(model: FakeModel) -> None:
    model.fill()
    requests = model.submit(*[pending() for _ in range(5)])
    told = model.dispatcher.waiting_since(requests[3].arrival_ns, 0, 10)
    assert told == [r for r in requests if r.arrival_ns < requests[3].arrival_ns]
    assert model.dispatcher.waiting_since(requests[-1].arrival_ns + 1, 0, 2) == requests[:2]
    assert model.dispatcher.waiting_since(requests[-1].arrival_ns + 1, requests[1].id, 2) == requests[2:4]


def test_closing_returns_what_waits(model: FakeModel) -> None:
    running = model.fill()
    waiting = model.submit(*[pending() for _ in range(20)])
    ending = threading.Thread(target=end_batches_while_lanes_close, args=(model,))
    ending.start()
    assert model.dispatcher.close() == waiting
    ending.join()
    assert model.ends.keys() == {r.id for r in running}


def test_many_threads_may_submit(model: FakeModel) -> None:
    requests = [[pending(5_000.0) for _ in range(40)] for _ in range(8)]

    def work(own: list[list[int]], mine: int) -> None:
        for request in requests[mine]:
            model.submit(request)
            own[mine].append(request.id)

    submitted: list[list[int]] = [[] for _ in requests]
    threads = [threading.Thread(target=work, args=(submitted, i)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batches = model.wait_for(*[r for own in requests for r in own])
    assert all(batch.launch is not None and batch.rows <= 8 for batch in batches)
    assert model.at_once_most <= 2


# Several models


def test_models_share_the_lanes_of_the_device() -> None:
    with FakeModel("a") as a, FakeModel("b") as b:
        a.fill()
        (waiting,) = b.submit(pending())
        assert b.dispatcher._link.lanes == 2
        a.gate.set()
        (batch,) = b.wait_for(waiting)
        assert batch.launch is not None
        assert batch.launched_ns > a.started[-1].launched_ns


def test_the_lanes_of_a_model_that_went_are_free() -> None:
    with FakeModel("b") as b:
        a = FakeModel("a")
        a.fill()
        (waiting,) = b.submit(pending())
        a.dispatcher._link.close()  # as when its process dies
        b.wait_for(waiting)
        a.close()


def test_a_model_that_wants_other_lanes_is_refused(model: FakeModel) -> None:
    with pytest.raises(ConfigError) as refused:
        FakeModel("vgg19", lanes=5)
    assert str(refused.value) == (
        "device_lanes is 5 for model 'vgg19', but this device's scheduler runs 2; "
        "give every model on the device the same value"
    )
    assert decided_by_a_scheduler(model)


def test_a_model_without_a_wish_takes_the_lanes_there_are(model: FakeModel) -> None:
    with FakeModel("other", lanes=None) as other:
        assert other.dispatcher._link.lanes == model.dispatcher._link.lanes == 2


def test_devices_have_a_scheduler_each(model: FakeModel) -> None:
    with FakeModel(device="gpu-0", lanes=3) as other:
        assert scheduler_pid("gpu-0") != scheduler_pid("cpu")
        assert other.dispatcher._link.lanes == 3
        assert decided_by_a_scheduler(other)
        assert decided_by_a_scheduler(model)


# Without a scheduler


def test_a_killed_scheduler_loses_no_request_and_is_replaced(model: FakeModel) -> None:
    pid = scheduler_pid()
    running = model.fill()
    waiting = model.submit(*[pending() for _ in range(30)])
    kill(signal.SIGKILL)
    eventually(lambda: not model.dispatcher._connected)
    later = model.submit(*[pending() for _ in range(30)])
    model.gate.set()
    model.wait_for(*running, *waiting, *later)
    until_connected(model)
    assert scheduler_pid() != pid
    assert decided_by_a_scheduler(model)


def test_the_next_scheduler_adopts_what_runs_and_decides_on_what_waits(model: FakeModel) -> None:
    running = model.fill()
    waiting = model.submit(*[pending() for _ in range(12)])
    kill(signal.SIGKILL)
    eventually(lambda: not model.dispatcher._connected)
    until_connected(model)
    assert len(model.started) == 2  # both lanes are taken, so nothing was launched meanwhile
    later = model.submit(*[pending() for _ in range(3)])
    model.gate.set()
    assert all(batch.launch is not None for batch in model.wait_for(*waiting, *later))
    model.wait_for(*running)
    assert all(batch.id < 0 for batch in model.started[:2])
    assert model.at_once_most == 2


@pytest.mark.usefixtures("impatient")
def test_without_a_scheduler_requests_run_in_their_order(model: FakeModel) -> None:
    kill(signal.SIGSTOP)
    model.gate.clear()
    groups = (1, 1, 2, 1, 1, 1)
    requests = model.submit(*[pending(group=group) for group in groups], pending(rows=7, group=1))
    eventually(lambda: not model.dispatcher._connected)
    model.gate.set()
    model.wait_for(*requests)
    batches = sorted(model.started, key=lambda batch: -batch.id)
    assert [[r.id for r in b.requests] for b in batches] == [
        [r.id for r in requests[:2]],
        [requests[2].id],
        [r.id for r in requests[3:6]],
        [requests[6].id],
    ]
    assert all(b.launch is None and b.id < 0 for b in batches)
    kill(signal.SIGKILL)
    until_connected(model)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.link.SILENCE_S", 0.03)
    monkeypatch.setattr("backend.link._RECONNECT_S", 0.3)


@pytest.mark.usefixtures("impatient")
def test_a_hung_scheduler_is_given_up_and_no_request_is_lost() -> None:
    with FakeModel("a") as a, FakeModel("b") as b:
        kill(signal.SIGSTOP)
        requests = [(m, m.submit(*[pending() for _ in range(40)])) for m in (a, b)]
        for m, own in requests:
            assert all(batch.launch is None for batch in m.wait_for(*own))
            m.wait_for(*m.submit(pending()))
        kill(signal.SIGKILL)
        until_connected(a, b)
        eventually(lambda: decided_by_a_scheduler(a))  # an impatient model may give up on a slow machine once more
        eventually(lambda: decided_by_a_scheduler(b))


@pytest.mark.usefixtures("impatient")
def test_a_scheduler_that_pauses_is_taken_back(model: FakeModel) -> None:
    pid = scheduler_pid()
    kill(signal.SIGSTOP)
    assert not decided_by_a_scheduler(model)
    kill(signal.SIGCONT)
    until_connected(model)
    eventually(lambda: decided_by_a_scheduler(model))
    assert scheduler_pid() == pid


@pytest.mark.usefixtures("impatient")
def test_where_the_machine_stood_still_the_scheduler_has_its_turn(model: FakeModel) -> None:
    """A wait that took as long as many says nothing about the scheduler, which could not run either."""
    connection = model.dispatcher._link._socket
    assert connection is not None
    kill(signal.SIGSTOP)
    (request,) = model.submit(pending(5_000.0))
    connection.settimeout(0.5)  # many times the patience of `impatient`
    time.sleep(0.7)
    kill(signal.SIGCONT)
    (batch,) = model.wait_for(request)
    assert batch.launch is not None


@pytest.mark.usefixtures("impatient")
def test_a_quiet_scheduler_is_asked_and_answers(model: FakeModel) -> None:
    """Both lanes are busy, so that it has nothing to say for many times its patience."""
    asked = threading.Semaphore(0)
    send = model.dispatcher._link.send

    def counting(event: Event) -> bool:
        if isinstance(event, Ping):
            asked.release()
        return send(event)

    model.dispatcher._link.send = counting  # type: ignore[method-assign]
    model.fill()
    (request,) = model.submit(pending())
    for _ in range(5):
        assert asked.acquire(timeout=PATIENCE_S)
    assert model.dispatcher._connected
    model.gate.set()
    assert model.wait_for(request)[0].launch is not None


@pytest.mark.usefixtures("impatient")
def test_closing_without_a_scheduler_loses_nothing() -> None:
    model = FakeModel()
    kill(signal.SIGSTOP)
    model.gate.clear()
    running = model.submit(pending(), pending(group=1))
    eventually(lambda: len(model.started) == 2)
    waiting = model.submit(*[pending() for _ in range(20)])
    ending = threading.Thread(target=end_batches_while_lanes_close, args=(model,))
    ending.start()
    left = model.dispatcher.close()
    ending.join()
    kill(signal.SIGKILL)
    assert left == waiting
    assert model.ends.keys() == {r.id for r in running}


def end_batches_while_lanes_close(model: FakeModel) -> None:
    """Open the gate once each lane has been told to end after its batch."""
    queues = model.dispatcher._lanes._queues
    eventually(lambda: all(queue.qsize() == 1 for queue in queues))
    model.gate.set()


# The scheduler's process


def connected(device: str = "cpu") -> socket.socket:
    connection = connect_or_spawn(device, 2, PATIENCE_S)
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
    "adopt twice": Adopt((RunningBatch(-1, 1, 0), RunningBatch(-1, 1, 0))),
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


def test_a_question_is_answered(model: FakeModel) -> None:
    with connected() as connection:
        assert isinstance(reply_to(connection, encode(_JOIN)), Welcome)
        assert isinstance(reply_to(connection, encode(Ping())), Decided)
    assert decided_by_a_scheduler(model)


def test_whoever_comes_at_once_meets_one_scheduler() -> None:
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


def test_a_scheduler_that_nobody_needs_ends_and_takes_its_socket_along() -> None:
    point = meeting_point("spare")
    serve(point, 1, linger_s=0.0)
    assert not point.socket.exists()
    serve(point, 1, linger_s=None)  # one runs already, by the lock that this process holds: returns at once
    assert int(point.lock.read_text()) == os.getpid()


# The runtime folder


def refused_folder(monkeypatch: pytest.MonkeyPatch, folder: Path | str) -> str:
    monkeypatch.setenv(VARIABLE, str(folder))
    with pytest.raises(ServerError) as refused:
        FakeModel()
    return str(refused.value)


@pytest.mark.parametrize("folder", ["/proc/isochrone", "/sys/isochrone", "/dev/null/isochrone"])
def test_a_folder_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    sentence = refused_folder(monkeypatch, folder)
    assert sentence.startswith(f"the scheduler's socket cannot go to '{folder}': ")
    assert sentence.endswith(f"; set {VARIABLE} to a folder that only this user can write to")


def test_a_folder_that_others_may_write_to_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert refused_folder(monkeypatch, tmp_path) == (
        f"the scheduler's socket cannot go to '{tmp_path}': others may write to it; "
        f"set {VARIABLE} to a folder that only this user can write to"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    assert "others may write to it" in refused_folder(monkeypatch, tmp_path)


def test_a_folder_without_a_path_short_enough_for_a_socket_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 100)
    assert refused_folder(monkeypatch, long) == (
        f"the scheduler's socket path '{long}/cpu.sock' is longer than 107 bytes; set {VARIABLE} to a shorter folder"
    )


def test_the_folder_is_made_and_is_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "a" / "b"))
    assert meeting_point("cpu").socket == tmp_path / "a" / "b" / "cpu.sock"
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_the_default_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert meeting_point("cpu").lock == tmp_path / "isochrone" / "cpu.lock"


def test_a_file_where_the_socket_should_be_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    tmp_path.chmod(0o700)
    (tmp_path / "cpu.sock").symlink_to(tmp_path / "cpu.sock")
    with pytest.raises(ServerError, match=r"the scheduler's socket '.*/cpu\.sock' cannot be used: "):
        FakeModel()
