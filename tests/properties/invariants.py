"""Invariants of a scheduler after each event and at the end, by the account: its state, its integrals, its training."""

from __future__ import annotations

import pytest

from backend.scheduler.core import Scheduler
from backend.scheduler.policy import IDLE_NS_MAX
from predictor.colocation import SCALE
from tests.fakes.builders import START_NS
from tests.properties.account import Account
from tests.properties.intervals import FEATURES
from tests.properties.recorders import RecordedPredictor


def check_state(scheduler: Scheduler, account: Account) -> None:
    """Each request, batch and lease is where the account has it, and nothing is held that stock Triton would launch."""
    scheduler.check_invariants()
    assert scheduler.sources.keys() == account.models.keys()
    for i, model in account.models.items():
        queue = scheduler.sources[i].queue
        assert queue.ids() == model.waiting.keys(), "a request was lost, or came from nowhere"
    assert scheduler.device.running.keys() == {(i, b) for i, model in account.models.items() for b in model.running}
    if not scheduler.device.running and account.waiting():
        _check_idle_hold(scheduler, account)
    leased = account.leased()
    assert len(leased) == sum(m.lease is not None for m in account.models.values()) <= 1
    assert scheduler.device.reserved_lane == next(iter(leased), None)
    if len(account.occupied() | leased) < account.lanes:
        in_order = [m for m in account.models.values() if not m.join.interference_aware]
        assert not any(m.waiting for m in in_order), "stock would launch"


def _check_idle_hold(scheduler: Scheduler, account: Account) -> None:
    """An idle device holds for a higher class than what waits first, and not for long."""
    assert all(model.join.interference_aware or not model.waiting for model in account.models.values())
    waiting = [request.priority for model in account.models.values() for request in model.waiting.values()]
    assert max(waiting) > min(scheduler.policy.arrivals.classes), "nothing higher is expected"
    assert scheduler.wake_after_ns() <= account.seen_ns + IDLE_NS_MAX, "an idle device holds for long"


def check_integral(scheduler: Scheduler, account: Account) -> None:
    """The running integral and what each batch suffered, recomputed from all intervals."""
    colocation, intervals, now_ns = scheduler.device.colocation, account.intervals, account.seen_ns
    colocation.advance(now_ns)
    assert list(colocation._integral) == intervals.integral(START_NS, now_ns)[FEATURES:]
    for model in account.models.values():
        for batch in model.running.values():
            if not batch.suspended:
                assert colocation.suffered(batch.key) == intervals.suffered(batch.interval, now_ns)[FEATURES:]


def check_training(predictor: RecordedPredictor, account: Account) -> None:
    """Each batch that ended well trained the predictor once, with its own co-runners."""
    assert len(predictor.trained) == len(account.trained)
    for sums, interval in list(zip(predictor.trained, account.trained, strict=True))[-4:]:
        if interval.end_ns != interval.start_ns:  # else the order of events in that nanosecond decides
            suffered = account.intervals.suffered(interval, account.seen_ns)[:FEATURES]
            rounded = (0.5 * suffered[0] + 0.1) / SCALE  # here each co-runner's parts are, in the sample not
            assert sums == pytest.approx(suffered, rel=1e-5, abs=rounded)
