"""Leases between a model's process and the scheduler's."""

from __future__ import annotations

import signal

import pytest

from tests.fakes.fake_model import FakeModel, eventually, pending, signal_scheduler

pytestmark = pytest.mark.usefixtures("runtime_dir")


def until_leased(model: FakeModel) -> None:
    """Submit one request after another, until one is launched by lease."""

    def leased() -> bool:
        (batch,) = model.wait_for(*model.submit(pending(5_000.0)))
        return batch.leased

    eventually(leased)


def test_a_model_has_the_lease_until_another_one_wants_the_device() -> None:
    with FakeModel("a") as model:
        until_leased(model)
        with FakeModel("b") as other:
            running = other.fill(lanes=1)
            eventually(lambda: model.dispatcher._lease is None)
            (batch,) = model.wait_for(*model.submit(pending(5_000.0)))
            assert not batch.leased
            other.gate.set()
            other.wait_for(*running)


def test_a_lease_dies_with_its_scheduler() -> None:
    with FakeModel() as model:
        until_leased(model)
        signal_scheduler(signal.SIGKILL)
        eventually(lambda: model.dispatcher._lease is None)
        model.wait_for(*model.submit(pending(5_000.0)))
        eventually(lambda: model.dispatcher._connected)
        until_leased(model)


def test_requests_that_the_lease_is_not_for_are_decided_on() -> None:
    with FakeModel() as model:
        until_leased(model)
        (late,) = model.wait_for(*model.submit(pending(-1.0)))
        assert not late.leased
        until_leased(model)
        (other_shape,) = model.wait_for(*model.submit(pending(group=7)))
        assert not other_shape.leased
        until_leased(model)
        assert not any(batch.leased for batch in model.wait_for(*model.submit(pending(rows=2), pending())))
