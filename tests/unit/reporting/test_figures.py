"""Figures, worked out by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from backend.reporting.attribution import Attribution
from backend.reporting.figures import Deadlines, Figures, figures_of
from backend.reporting.recording import ExecutedBatch, Recording, Suspended
from predictor.features import Own
from tests.fakes.builders import MS, load


def executed(exec_ms: int, predicted_ms: int | None, bound_ms: int | None, *suspended_ms: int) -> ExecutedBatch:
    return ExecutedBatch(
        "cpu",
        Own("m", 1, load(10.0)),
        0,
        exec_ms * MS,
        exec_ms * MS,
        0,
        (),
        None if predicted_ms is None else predicted_ms * MS,
        None if bound_ms is None else bound_ms * MS,
        tuple(Suspended("urgent", ms * MS) for ms in suspended_ms),
    )


def figures(*batches: ExecutedBatch) -> Figures:
    log = Recording("events", ("cpu",), 1, 0, MS, list(batches))
    log.outcomes = {
        ("m", 2): Counter({"met": 6, "missed": 3, "rejected": 1, "no deadline": 4, "failed": 1, "unknown": 1})
    }
    return figures_of(log, Attribution(log))


def test_deadlines_are_counted_by_what_became_of_them() -> None:
    (found,) = figures().deadlines
    assert found == Deadlines("m", 2, 16, 6, 3, 1, 4, 2)
    assert found.met_share == 0.6


def test_predictions_are_compared_with_what_was_measured() -> None:
    """Of a suspended batch nothing is predicted."""
    (found,) = figures(
        executed(20, 10, 15), executed(10, 15, 18), executed(10, 9, 11), executed(10, 10, 10), executed(90, 10, 10, 70)
    ).predicted
    assert (found.batches, found.measured_ns, found.solo_ns) == (4, 12.5 * MS, 10 * MS)
    assert found.error_p50 == pytest.approx(0.3)  # of 0, 0.1, 0.5, 0.5
    assert found.error_p95 == pytest.approx(0.5)
    assert found.held == 0.75


def test_a_log_without_bounds_or_predictions_has_none() -> None:
    (found,) = figures(executed(10, 10, None)).predicted
    assert found.held is None
    assert figures(executed(10, None, None)).predicted == []


@pytest.mark.parametrize(("suspended_ms", "running_ms"), [((), 30), ((5, 5), 20), ((25,), 10), ((40,), 10)])
def test_a_suspended_batch_runs_no_less_than_its_solo_latency(suspended_ms: tuple[int, ...], running_ms: int) -> None:
    assert executed(30, None, None, *suspended_ms).running_ns == running_ms * MS
    assert executed(8, None, None, 1).running_ns == 8 * MS
