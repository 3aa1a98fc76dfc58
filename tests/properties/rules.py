"""Rules that single commands keep, by what is known of their model."""

from __future__ import annotations

import pytest

from backend.scheduler.messages import Reject, Request
from tests.properties.processes import Model

ALMOST = 1e-6


def nearly(solo_ns: float) -> object:
    """By other arithmetic."""
    return pytest.approx(solo_ns, rel=ALMOST, abs=1.0)


def check_in_order(model: Model, batch: list[Request], rows: int) -> None:
    """The oldest, without a gap, and no fewer than a stock dynamic batcher would take."""
    oldest = sorted(model.waiting.values(), key=lambda r: (r.arrival_ns, r.id))
    assert batch == oldest[: len(batch)]
    if len(oldest) > len(batch):
        following = oldest[len(batch)]
        assert following.group != batch[0].group or rows + following.rows > model.join.max_batch_size


def check_rejection(model: Model, request: Request, reject: Reject, now_ns: int) -> None:
    """Only what cannot make its deadline, of a model that rejects, and never for want of a measurement."""
    assert model.join.rejects and model.join.interference_aware
    assert request.deadline_ns is not None
    solo_ns, known = model.solo.solo_ns(request.rows, request.group), model.solo.knows(request.group)
    if not known:
        assert now_ns > request.deadline_ns, "refused for want of a measurement"
    assert model.moves or now_ns + solo_ns * (1 + ALMOST) + 1 > request.deadline_ns
    allowed_ns = request.deadline_ns - request.arrival_ns
    if 0 < allowed_ns < solo_ns * (1 - ALMOST) - 1 and not model.doubted and not model.late & model.waiting.keys():
        assert not model.solo.old(request.rows, request.group, now_ns), "no request is let through"
    assert reject.allowed_ns == request.deadline_ns - request.arrival_ns < reject.predicted_ns
