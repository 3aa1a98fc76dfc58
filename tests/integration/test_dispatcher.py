"""A model's queue between a real scheduler's process and a fake runner: requests' ways."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from backend.errors import EngineError
from backend.linux.execution_priority import ORDINARY_PRIORITY
from backend.model_process.batch import Batch
from backend.scheduler.messages import Cancel, Event, Finish, Take
from tests.fakes.fake_model import (
    PATIENCE_S,
    FakeModel,
    decided_by_a_scheduler,
    end_batches_while_lanes_close,
    eventually,
    pending,
)

pytestmark = pytest.mark.usefixtures("runtime_dir")


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
