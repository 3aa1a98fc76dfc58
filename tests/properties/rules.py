"""Rules that single commands and events keep, by the account as it was before them. Those of the state after each event
are in `invariants`.
"""

from __future__ import annotations

import pytest

from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Launch, Lease, Recall, Reject, Request, Take
from tests.fakes.builders import MS
from tests.properties.account import Account, Execution
from tests.properties.processes import Batch, Model

ALMOST = 1e-6


def nearly(solo_ns: float) -> object:
    """By other arithmetic."""
    return pytest.approx(solo_ns, rel=ALMOST, abs=1.0)


def check_load(model: Model, execution: Execution, rows: int, group: int | None) -> None:
    """A batch that begins is as heavy as its model's profile and measurements say."""
    assert execution.load.solo_ns == nearly(model.solo.solo_ns(rows, group))
    assert execution.load.features == model.join.profile.at(rows).features


def check_launch(account: Account, scheduler: Scheduler, launch: Launch, preempted: list[Batch]) -> None:
    """A launch of what waits, on a lane that is free, or in the place of the batches that it preempts."""
    model = account.models[launch.source]
    assert launch.batch > account.batches, "a batch number was used twice"
    assert launch.requests and len(set(launch.requests)) == len(launch.requests)
    # Waiting here means: of this source, neither launched nor rejected nor cancelled before.
    batch = [model.waiting[request] for request in launch.requests]
    assert 0 <= launch.lane < account.lanes
    if launch.preempts:
        _check_preemption(account, scheduler, launch, batch[0], preempted)
    else:
        assert launch.lane not in account.occupied(), "two batches on a lane"
        assert launch.lane not in account.leased(), "another one may launch there by itself"
        assert not preempted
    rows = sum(r.rows for r in batch)
    assert len({r.group for r in batch}) == 1
    assert rows <= model.join.max_batch_size or len(batch) == 1
    if not model.join.interference_aware:
        _check_in_order(model, batch, rows)
    _check_times(model, launch, rows, batch[0].group)
    check_load(model, account.executions[launch.source, launch.batch], rows, batch[0].group)


def _check_preemption(
    account: Account, scheduler: Scheduler, launch: Launch, head: Request, preempted: list[Batch]
) -> None:
    """Only for a deadline, or of a lower class without one, and only where no lane is free."""
    model = account.models[launch.source]
    assert not account.batches_on(launch.lane, preempts=True), "two preempting batches on a lane"
    assert account.batches_on(launch.lane, preempts=False) == preempted != []
    assert len(account.occupied()) == account.lanes, "a lane was free"
    assert model.join.interference_aware and account.lanes <= model.join.preemptible_lanes
    below = scheduler.device.running[preempted[0].key].priority
    without = preempted[0].due_ns is None and head.priority < below
    assert head.deadline_ns is not None or without, "it could wait, and the other one had a deadline"


def _check_in_order(model: Model, batch: list[Request], rows: int) -> None:
    """The oldest, without a gap, and no fewer than a stock dynamic batcher would take."""
    oldest = sorted(model.waiting.values(), key=lambda r: (r.arrival_ns, r.id))
    assert batch == oldest[: len(batch)]
    if len(oldest) > len(batch):
        following = oldest[len(batch)]
        assert following.group != batch[0].group or rows + following.rows > model.join.max_batch_size


def _check_times(model: Model, launch: Launch, rows: int, group: int) -> None:
    assert launch.times.solo_ns == nearly(model.solo.solo_ns(rows, group))
    assert launch.times.predicted_ns > 0 and launch.times.bound_ns >= 0 and launch.holds >= 0
    assert min(launch.times.h2d_ns, launch.times.d2h_ns) >= 0
    assert model.moves or launch.times.h2d_ns == launch.times.d2h_ns == 0


def check_preempted(account: Account, batch: Batch) -> None:
    """A batch is suspended of a model that allows it, and not for ever."""
    model = account.models[batch.key[0]]
    assert model.join.interference_aware and account.lanes <= model.join.preemptible_lanes
    assert batch.requests and not batch.preempts and not batch.suspended
    young = account.now_ns < batch.launched_ns + 1_000 * MS
    assert young or (batch.due_ns is not None and account.now_ns < batch.due_ns), "it would be suspended for ever"


def check_lease(account: Account, scheduler: Scheduler, lease: Lease) -> None:
    """A lease of a lane of an idle device with another one besides."""
    assert not scheduler.device.running, "a lease is for an idle device"
    assert account.lanes > 1 and 0 <= lease.lane < account.lanes
    model = account.models[lease.source]
    assert lease.arrivals == model.arrivals
    assert lease.times.solo_ns == nearly(model.solo.solo_ns(lease.rows, lease.group))


def check_recall(account: Account, recall: Recall) -> None:
    """A lease is recalled by its number, once."""
    model = account.models[recall.source]
    assert model.lease is not None and model.lease.lease == recall.lease and not model.recalled


def check_take(account: Account, source: int, take: Take) -> None:
    """A process launches by itself what its lease is for."""
    model, request = account.models[source], take.request
    assert model.lease is not None and (request.rows, request.group) == (model.lease.rows, model.lease.group)
    check_load(model, account.executions[source, take.batch], request.rows, request.group)


def check_doubt(account: Account, model: Model, rows: int, group: int) -> None:
    """A request is let through to measure its like only where that was neither measured nor doubted for long."""
    assert model.solo.old(rows, group, account.now_ns), "it was measured, or doubted, a moment ago"
    assert model.join.interference_aware


def check_rejection(account: Account, reject: Reject) -> None:
    """Only what cannot make its deadline, of a model that rejects, and never for want of a measurement."""
    model, now_ns = account.models[reject.source], account.now_ns
    request = model.waiting[reject.request]
    assert model.join.rejects and model.join.interference_aware
    assert request.deadline_ns is not None
    solo_ns, known = model.solo.solo_ns(request.rows, request.group), model.solo.knows(request.group)
    if not known:
        assert now_ns > request.deadline_ns, "refused for want of a measurement"
    assert model.moves or now_ns + solo_ns * (1 + ALMOST) + 1 > request.deadline_ns
    allowed_ns = request.deadline_ns - request.arrival_ns
    others = model.waiting.keys() - {request.id}
    if 0 < allowed_ns < solo_ns * (1 - ALMOST) - 1 and not model.doubted and not model.late & others:
        assert not model.solo.old(request.rows, request.group, now_ns), "no request is let through"
    assert reject.allowed_ns == request.deadline_ns - request.arrival_ns < reject.predicted_ns
