"""Late requests' time: its parts, worked out by hand and added up over whole logs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from backend.reporting.attribution import Attribution, Blame, late_request
from backend.reporting.event_reader import read_event_recording
from backend.reporting.figures import figures_of
from backend.reporting.lane_time import LaneTime
from backend.reporting.recording import Answer, ExecutedBatch, LaneSpan, Suspended
from backend.scheduler_process.request_index import RequestIndex
from predictor.features import Own
from tests.fakes.builders import MS, load
from tests.fakes.recorded import Recorded
from tests.fakes.simulated_log import SimulatedLog


def executed(
    launched_ms: float,
    ended_ms: float,
    exec_ms: float,
    *,
    transfers_ms: float = 0.0,
    suspended: tuple[Suspended, ...] = (),
) -> ExecutedBatch:
    launched_ns, ended_ns, exec_ns, transfers_ns = (
        round(ms * MS) for ms in (launched_ms, ended_ms, exec_ms, transfers_ms)
    )
    own = Own("mine", 1, load(10.0))
    return ExecutedBatch("cpu", own, launched_ns, ended_ns, exec_ns, transfers_ns, (), None, suspended=suspended)


def test_every_cause_has_its_part() -> None:
    """Arrives at 0, waits behind two others and itself to 30, is launched, runs 24 of which it is suspended 6."""
    lanes = LaneTime([LaneSpan(0, 20 * MS, "a"), LaneSpan(10 * MS, 25 * MS, "mine")], lanes=2)
    batch = executed(30.0, 60.0, 24.0, transfers_ms=5.0, suspended=(Suspended("urgent", 6 * MS),))
    late = late_request(batch, Answer(0, 40 * MS, 2), {"b": 7 * MS, None: 1 * MS}, lanes)
    assert late.total_ns == 60 * MS
    assert late.slo_ns == 40 * MS
    assert {part: span_ns / MS for part, span_ns in late.parts.items()} == {
        Blame("held", "a"): 10.0,
        Blame("queueing", "a"): 5.0,
        Blame("queueing", "mine"): 5.0,
        Blame("held", "mine"): 5.0,
        Blame("held", None): 5.0,
        Blame("execution", None): 10.0,
        Blame("interference", "b"): 7.0,
        Blame("not explained", None): 1.0,
        Blame("suspended", "urgent"): 6.0,
        Blame("transfers", None): 5.0,
        Blame("overhead", None): 1.0,
    }


def test_a_batch_that_began_before_the_scheduler_heard_of_it_waited_less() -> None:
    """As under a lease: launched at 5 as the scheduler knows, though it ran from 2 on."""
    late = late_request(executed(5.0, 14.0, 12.0), Answer(0, 1 * MS, 1), {None: 2 * MS}, LaneTime([], 2))
    assert late.parts == {
        Blame("held"): 2 * MS,
        Blame("execution"): 10 * MS,
        Blame("not explained"): 2 * MS,
        Blame("transfers"): 0,
        Blame("overhead"): 0,
    }


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_parts_of_every_late_request_add_up_whatever_happened(tmp_path: Path, seed: int) -> None:
    """Preemptions, leases, adopted batches, transfers, processes that come and go."""
    path = tmp_path / "events"
    with Recorded(path, seed) as recorded:
        recorded.run(2_500)
    log = read_event_recording(path)
    found = Attribution(log)
    records = [r for r in RequestIndex(path).requests if (r.late_ns or 0) > 0]
    took_ns = Counter((r.ended_ns or 0) - r.request.arrival_ns for r in records)
    assert Counter(late.total_ns for late in found.late) == took_ns
    for late in found.late:
        assert sum(late.parts.values()) == late.total_ns
        assert all(span_ns >= 0 for part, span_ns in late.parts.items() if part.cause != "interference")
    figures = figures_of(log, found)
    assert sum(figures.all_late.parts.values()) == figures.all_late.total_ns == sum(took_ns.elements())
    assert sum(late.total_ns for late in figures.late) == figures.all_late.total_ns


def test_the_sums_of_a_simulated_load_add_up(disturbed: SimulatedLog, alike: SimulatedLog) -> None:
    for log in (disturbed, alike):
        recording = read_event_recording(log.events)
        found = Attribution(recording)
        figures = figures_of(recording, found)
        late_s = sum(o.latency_ms / 1e3 for o in log.ran.outcomes() if not o.met)
        assert figures.all_late.total_ns / 1e9 == pytest.approx(late_s, rel=1e-6)
        assert sum(figures.all_late.parts.values()) == figures.all_late.total_ns
        cost_ns = sum(pair.cost_ns for pair in figures.pairs) + sum(figures.not_explained.values())
        assert cost_ns == sum(b.exec_ns - b.own.load.solo_ns for b in recording.batches)
