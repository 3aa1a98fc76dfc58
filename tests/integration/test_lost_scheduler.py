"""A model's queue where the scheduler's process dies, hangs or pauses: no request is lost."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from backend.scheduler.messages import Event, Ping
from tests.fakes.fake_model import (
    PATIENCE_S,
    FakeModel,
    decided_by_a_scheduler,
    end_batches_while_lanes_close,
    eventually,
    pending,
    scheduler_pid,
    signal_scheduler,
    until_connected,
)

pytestmark = pytest.mark.usefixtures("runtime_dir")


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
