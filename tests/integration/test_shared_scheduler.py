"""Models that share a device's scheduler: its lanes, and how far batches grow."""

from __future__ import annotations

import signal
import socket

import pytest

from backend.device_process import connect_or_start
from backend.errors import ConfigError
from backend.runtime_dir import MeetingPoint
from tests.fakes.fake_model import (
    FakeModel,
    decided_by_a_scheduler,
    eventually,
    pending,
    scheduler_pid,
    signal_scheduler,
    until_connected,
)

pytestmark = pytest.mark.usefixtures("runtime_dir")


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
