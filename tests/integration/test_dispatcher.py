"""A model's queue between a real scheduler's process and a fake runner, also where that process dies or hangs."""

from __future__ import annotations

import signal
import socket
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from backend.device_process import connect_or_start
from backend.errors import ConfigError, EngineError
from backend.linux.execution_priority import ORDINARY_PRIORITY
from backend.model_process.batch import Batch
from backend.runtime_dir import MeetingPoint
from backend.scheduler.messages import Cancel, Event, Finish, Ping, Take
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


# A request's way


def test_a_request_runs_as_the_scheduler_decides(model: FakeModel) -> None:
    (request,) = model.submit(pending(5_000.0))
    (batch,) = model.wait_for(request)
    assert batch.launch is not None
    assert batch.launch.requests == (request.id,)
    assert (batch.id, batch.lane, batch.launch.times.solo_ns) == (batch.launch.batch, batch.launch.lane, 1_000_000)
    assert batch.launched_ns >= request.arrival_ns
    assert model.results == {request.id: []}
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


def test_a_batch_that_cannot_be_answered_leaves_its_lane_free(
    model: FakeModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = threading.Semaphore(0)

    def broken(_batch: Batch, _result: object) -> None:
        called.release()
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(model, "answer", broken)
        model.submit(pending(), pending(group=1))
        assert called.acquire(timeout=PATIENCE_S)
        assert called.acquire(timeout=PATIENCE_S)
    eventually(lambda: caplog.text.count("a batch could not be answered") == 2)
    assert all(decided_by_a_scheduler(model) for _ in range(4))


def test_a_batch_that_is_run_by_two_threads_is_answered_once(model: FakeModel) -> None:
    """Case of a foreign process that starves the one."""
    (request,) = model.fill(1)
    (batch,) = model.started
    other = threading.Thread(target=model.dispatcher._run, args=(replace(batch), ORDINARY_PRIORITY))
    other.start()
    model.wait(lambda: len(model.started) == 2)
    model.gate.set()
    other.join()
    model.wait_for(request)
    assert decided_by_a_scheduler(model)  # the lane is free, and the scheduler knows
    assert model.ends[request.id] == 1
    assert not model.dispatcher._running


def test_a_launch_by_lease_is_announced_before_its_batch_ends(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that is while the thread that launched it sleeps."""
    sent: list[Event] = []
    send = model.dispatcher._client.send

    def recording(event: Event) -> bool:
        sent.append(event)
        return send(event)

    def sleep(_: float) -> None:
        eventually(lambda: any(isinstance(event, Finish) for event in sent))

    def has_lease() -> bool:
        return decided_by_a_scheduler(model) and model.dispatcher._lease is not None

    eventually(has_lease)
    eventually(lambda: not model.dispatcher._running)
    monkeypatch.setattr(model.dispatcher._client, "send", recording)
    clock = SimpleNamespace(sleep=sleep, monotonic_ns=time.monotonic_ns)
    monkeypatch.setattr("backend.model_process.dispatcher.time", clock)
    (request,) = model.submit(pending(5_000.0))
    assert model.ends[request.id] == 1
    assert [type(event) for event in sent] == [Take, Finish]
    monkeypatch.undo()
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
    send = model.dispatcher._client.send
    model.dispatcher._client.send = lambda event: isinstance(event, Cancel) or send(event)  # type: ignore[method-assign]
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


def test_waiting_since_gives_the_oldest_requests(model: FakeModel) -> None:
    model.fill()
    requests = model.submit(*[pending() for _ in range(5)])
    oldest = model.dispatcher.waiting_since(requests[3].arrival_ns, 0, 10)
    assert oldest == [r for r in requests if r.arrival_ns < requests[3].arrival_ns]
    assert model.dispatcher.waiting_since(requests[-1].arrival_ns + 1, 0, 2) == requests[:2]
    assert model.dispatcher.waiting_since(requests[-1].arrival_ns + 1, requests[1].id, 2) == requests[2:4]


def test_closing_returns_waiting_requests(model: FakeModel) -> None:
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
        assert b.dispatcher._client.lanes == 2
        a.gate.set()
        (batch,) = b.wait_for(waiting)
        assert batch.launch is not None
        assert batch.launched_ns > a.started[-1].launched_ns


def test_the_lanes_of_a_model_that_went_are_free() -> None:
    with FakeModel("b") as b:
        a = FakeModel("a")
        a.fill()
        (waiting,) = b.submit(pending())
        a.dispatcher._client.close()  # as when its process dies
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


def test_the_next_scheduler_has_the_lanes_of_the_last_whoever_starts_it() -> None:
    device = "gpu-4"  # which has no scheduler yet
    with FakeModel("wishes", device=device, lanes=4) as wishes, FakeModel("takes", device=device, lanes=None) as takes:
        for _ in range(4):
            signal_scheduler(signal.SIGKILL, device)
            eventually(lambda: not (wishes.dispatcher._connected or takes.dispatcher._connected))
            until_connected(wishes, takes)
            assert takes.dispatcher._client.lanes == 4


def test_a_model_whose_lanes_are_gone_logs_so_and_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who never met the last scheduler started this one."""
    with FakeModel(device="gpu-5") as model:
        monkeypatch.setattr("backend.model_process.scheduler_client.connect_or_start", with_three_lanes)
        signal_scheduler(signal.SIGKILL, "gpu-5")
        eventually(lambda: "launches without its scheduler" in caplog.text)
        assert "device_lanes is 2 for model 'm', but this device's scheduler runs 3" in caplog.text
        (batch,) = model.wait_for(*model.submit(pending()))
        assert batch.launch is None


def with_three_lanes(point: MeetingPoint, timeout_s: float, *_: str) -> socket.socket:
    return connect_or_start(point, timeout_s, "--lanes", "3")


def test_a_model_without_device_lanes_takes_the_lanes_of_the_device(model: FakeModel) -> None:
    with FakeModel("other", lanes=None) as other:
        assert other.dispatcher._client.lanes == model.dispatcher._client.lanes == 2


def test_devices_have_a_scheduler_each(model: FakeModel) -> None:
    with FakeModel(device="gpu-0", lanes=3) as other:
        assert scheduler_pid("gpu-0") != scheduler_pid("cpu")
        assert other.dispatcher._client.lanes == 3
        assert decided_by_a_scheduler(other)
        assert decided_by_a_scheduler(model)


def run_together(model: FakeModel, count: int) -> set[int]:
    """Sizes of the batches of that many requests that wait together."""
    running = model.fill()
    waiting = model.submit(*[pending() for _ in range(count)])
    model.gate.set()
    model.wait_for(*running)
    return {len(batch.requests) for batch in model.wait_for(*waiting)}


def test_a_limit_to_its_batches_holds_with_each_later_scheduler_too(model: FakeModel) -> None:
    assert max(run_together(model, 8)) > 1
    model.dispatcher._limit_batches(1)
    assert run_together(model, 8) == {1}
    signal_scheduler(signal.SIGKILL)
    eventually(lambda: not model.dispatcher._connected)
    until_connected(model)
    assert run_together(model, 8) == {1}


def test_a_limit_while_there_is_no_scheduler_is_sent_to_the_next(model: FakeModel) -> None:
    signal_scheduler(signal.SIGKILL)
    eventually(lambda: not model.dispatcher._connected)
    model.dispatcher._limit_batches(1)
    until_connected(model)
    assert run_together(model, 8) == {1}


def test_more_rows_than_batches_grow_to_are_served(model: FakeModel) -> None:
    running = model.fill()
    small, large = model.submit(pending(5_000.0), pending(6_000.0, rows=12))
    model.gate.set()
    model.wait_for(*running)
    assert [batch.rows for batch in model.wait_for(small, large)] == [1, 12]


# Without a scheduler


def test_a_killed_scheduler_loses_no_request_and_is_replaced(model: FakeModel) -> None:
    pid = scheduler_pid()
    running = model.fill()
    waiting = model.submit(*[pending() for _ in range(30)])
    signal_scheduler(signal.SIGKILL)
    eventually(lambda: not model.dispatcher._connected)
    later = model.submit(*[pending() for _ in range(30)])
    model.gate.set()
    model.wait_for(*running, *waiting, *later)
    until_connected(model)
    assert scheduler_pid() != pid
    assert decided_by_a_scheduler(model)


def test_the_next_scheduler_adopts_running_batches_and_decides_on_waiting_requests(model: FakeModel) -> None:
    running = model.fill()
    waiting = model.submit(*[pending() for _ in range(12)])
    signal_scheduler(signal.SIGKILL)
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
    signal_scheduler(signal.SIGSTOP)
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
    signal_scheduler(signal.SIGKILL)
    until_connected(model)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.model_process.scheduler_client.SILENCE_S", 0.03)
    monkeypatch.setattr("backend.model_process.scheduler_client._RECONNECT_S", 0.3)


@pytest.mark.usefixtures("impatient")
def test_no_request_is_lost_with_a_hung_scheduler() -> None:
    with FakeModel("a") as a, FakeModel("b") as b:
        signal_scheduler(signal.SIGSTOP)
        requests = [(m, m.submit(*[pending() for _ in range(40)])) for m in (a, b)]
        for m, own in requests:
            assert all(batch.launch is None for batch in m.wait_for(*own))
            m.wait_for(*m.submit(pending()))
        signal_scheduler(signal.SIGKILL)
        until_connected(a, b)
        eventually(lambda: decided_by_a_scheduler(a))  # an impatient model may give up on a slow machine once more
        eventually(lambda: decided_by_a_scheduler(b))


@pytest.mark.usefixtures("impatient")
def test_a_scheduler_that_hangs_is_killed_and_replaced(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("backend.linux.hang_detector.WAIT_S", 0.2)
    monkeypatch.setattr("backend.linux.hang_detector.WAITS", 3)
    hung = scheduler_pid()
    signal_scheduler(signal.SIGSTOP)
    with FakeModel("newcomer") as newcomer:
        model.wait_for(*model.submit(pending()))
        until_connected(model, newcomer)
        assert decided_by_a_scheduler(newcomer)
    assert scheduler_pid() != hung
    assert f"scheduler {hung} hangs and is killed" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_a_scheduler_that_pauses_is_taken_back(model: FakeModel) -> None:
    pid = scheduler_pid()
    signal_scheduler(signal.SIGSTOP)
    assert not decided_by_a_scheduler(model)
    signal_scheduler(signal.SIGCONT)
    until_connected(model)
    eventually(lambda: decided_by_a_scheduler(model))
    assert scheduler_pid() == pid


@pytest.mark.usefixtures("impatient")
def test_a_scheduler_is_not_lost_where_the_machine_was_suspended(model: FakeModel) -> None:
    """A wait that took as long as many says nothing about the scheduler, which could not run either."""
    connection = model.dispatcher._client._socket
    assert connection is not None
    signal_scheduler(signal.SIGSTOP)
    (request,) = model.submit(pending(5_000.0))
    connection.settimeout(0.5)  # many times the patience of `impatient`
    time.sleep(0.7)
    signal_scheduler(signal.SIGCONT)
    (batch,) = model.wait_for(request)
    assert batch.launch is not None


@pytest.mark.usefixtures("impatient")
def test_a_quiet_scheduler_is_asked_and_answers(model: FakeModel) -> None:
    """Both lanes are busy, so that it has nothing to say for many times its patience."""
    asked = threading.Semaphore(0)
    send = model.dispatcher._client.send

    def counting(event: Event) -> bool:
        if isinstance(event, Ping):
            asked.release()
        return send(event)

    model.dispatcher._client.send = counting  # type: ignore[method-assign]
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
    signal_scheduler(signal.SIGSTOP)
    model.gate.clear()
    running = model.submit(pending(), pending(group=1))
    eventually(lambda: len(model.started) == 2)
    waiting = model.submit(*[pending() for _ in range(20)])
    ending = threading.Thread(target=end_batches_while_lanes_close, args=(model,))
    ending.start()
    left = model.dispatcher.close()
    ending.join()
    signal_scheduler(signal.SIGKILL)
    assert left == waiting
    assert model.ends.keys() == {r.id for r in running}


def end_batches_while_lanes_close(model: FakeModel) -> None:
    """Open the gate once each lane has been told to end after its batch."""
    workers = model.dispatcher._lanes._workers
    eventually(lambda: all(worker._queue.qsize() == 1 for worker in workers))
    model.gate.set()
