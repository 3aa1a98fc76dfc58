"""The comparison on a real server, without one: records taken up, arithmetic of its tables, its simulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from backend.load import figures
from backend.load.outcomes import MeasuredLoad, Outcome, Status
from backend.load.server_metrics import parse
from backend.progress_bar import StageBar
from backend.scheduler_process import scheduler_factory
from backend.simulation.contention import LinearContention
from benchmarks.compare.bench_report import Found
from benchmarks.compare.bench_report import report as comparison_report
from benchmarks.compare.collect import ComparisonCollector
from benchmarks.compare.paired_comparison import PairedComparison, met, met_of, missed
from benchmarks.compare.plan import FULL, QUICK
from benchmarks.compare.records import ComparisonRecords, ServerTurn, TurnRecord
from benchmarks.compare.servers import OURS, REFUSED, SERVERS
from benchmarks.compare.time_breakdown import TimeBreakdown, time_breakdown
from benchmarks.compare.virtual import kept_in_virtual_time, passed
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.records import RunManifest
from benchmarks.rivals import NAME_VARIABLE, LeastSlack, MovingAverage
from predictor.bound import UpperBound
from predictor.learners.isochrone import Isochrone
from predictor.transfers import TransferModel
from profiler.profile_file import FeatureShares, ProfileEntry, ProfileFile


def outcome(latency_ms: float, priority: int, status: Status = "ok") -> Outcome:
    return Outcome(f"m{priority}", 1.0, 1.001, 1.0 + latency_ms / 1e3, 50.0, priority, status)


def measured(target: str, load: float, repeat: int, kept: int) -> MeasuredLoad:
    """Ten requests of two classes; of each class so many keep their deadline."""
    outcomes = [outcome(10.0 if i < kept else 90.0, priority) for priority in (1, 2) for i in range(5)]
    return MeasuredLoad(target, load, repeat, 2.0, outcomes)


def test_where_the_time_went_adds_up() -> None:
    """Two requests of 40 ms on a client's clock, 30 of them inside the backend, and one batch for both."""
    text = """
isochrone_request_latency_us_sum{model="m1"} 60000
isochrone_request_latency_us_count{model="m1"} 2
isochrone_queue_us_sum{model="m1"} 20000
isochrone_queue_us_count{model="m1"} 2
isochrone_execution_us_sum{model="m1"} 18000
isochrone_execution_us_count{model="m1"} 1
"""
    outcomes = [outcome(40.0, 1), outcome(40.0, 1), outcome(5.0, 1, "rejected")]
    found = time_breakdown(0.5, outcomes, parse(text), lane_s=0.1)
    assert found is not None
    parts = (found.outside_ms, found.queue_ms, found.execution_ms, found.around_ms)
    assert parts == pytest.approx((10.0, 10.0, 18.0, 2.0))
    assert (found.latency_ms, found.lanes_busy) == pytest.approx((40.0, 0.18))
    assert time_breakdown(0.5, outcomes[2:], parse(text), lane_s=0.1) is None
    assert time_breakdown(0.5, outcomes, parse(""), lane_s=0.1) is None


def test_the_same_requests_in_virtual_time() -> None:
    """A request every 20 ms of a model that takes 10 ms, alone: what is added decides whether 15 ms suffice."""
    ms, about = 1_000_000, (9_900_000, 10_100_000)
    entry = ProfileEntry(1, 10 * ms, about, 10 * ms, about, 100.0, FeatureShares(0.5, 0.1, 0.1), 100, 1, 0, True)
    profiles = {"m1": ProfileFile(1, "m1", "1", "cpu", "test", "0", "graph", (entry,))}
    sent = [Outcome("m1", 0.02 * i, 0.02 * i, 0.02 * i, 15.0, 1, "ok") for i in range(50)]
    repeats = [MeasuredLoad(OURS, 0.5, i, 1.0, sent) for i in range(3)]
    for outside_ms, kept in ((3.0, 1.0), (6.0, 0.0)):
        costs = TimeBreakdown(0.5, outside_ms, 0.0, 10.0, 1.0, 0.5)
        assert kept_in_virtual_time([(m, costs) for m in repeats], profiles, 2, LinearContention()) == kept
    # More than one lane keeps up with: in order of arrival all wait, while a scheduler that refuses keeps some in time.
    crowded = [MeasuredLoad(OURS, 0.5, 0, 1.0, [replace(o, slo_ms=45.0) for o in sent])]
    slow, free = LinearContention(residuals=(2.5,)), TimeBreakdown(0.5, 0.0, 0.0, 10.0, 0.0, 0.5)
    fifo, aware = (
        kept_in_virtual_time([(m, free) for m in crowded], profiles, 1, slow, rival)
        for rival in ("in order", "isochrone")
    )
    assert fifo < aware


def test_a_burst_waits_for_itself_on_its_way_in() -> None:
    apart = [0.0, 1.0, 2.0]
    assert passed(apart, 0.003) == pytest.approx([0.003, 1.003, 2.003])
    burst = [1.0, 1.0, 1.0, 2.0]  # at 2 ms each: 2, 4, 6 and 2 ms late
    assert passed(burst, 0.0035) == pytest.approx([1.002, 1.004, 1.006, 2.002])
    assert passed(burst, 0.0) == passed(burst, -0.001) == pytest.approx(burst)


def test_the_comparison_goes_on_where_it_was_and_reports(tmp_path: Path) -> None:
    records = ComparisonRecords(QUICK, tmp_path / "records")
    records.begin()
    assert {turn.server for turn in records.missing()} == set(QUICK.servers) <= set(SERVERS)
    for i, turn in enumerate(records.turns()):
        found = [measured(turn.server, load, turn.repeat, 4 - i) for load in QUICK.loads]
        records.keep(
            turn.file, TurnRecord(found, [0.02] * len(found), 90.0 + i, [0.05, 0.07] if turn.server == OURS else [])
        )
    again = ComparisonRecords(QUICK, tmp_path / "records")
    again.begin()
    assert not again.missing()
    recorded = again.recorded()
    text = comparison_report(
        QUICK, RunManifest(None, "cpu", 2), {}, recorded, None, {"poisson": [tmp_path / "p.png"]}, tmp_path
    )
    assert "| **isochrone** | 40 (40 / 40) | 40 (40 / 40) |" in text
    assert "| 0.7 | 3.00 | – | 0.50 (stock, rate limiter) | 0.67 | 60.0 | – | 0.50 |" in text
    assert "![p](p.png)" in text
    assert "the closed-loop capacity, measured anew for each repeat (90 to 93 requests/s)" in text
    assert "5.0 % at load 0.7 (at most 5.0), 7.0 % at load 1.1 (at most 7.0)" in text
    other = ComparisonRecords(QUICK.__class__(repeats=9), tmp_path / "records")
    with pytest.raises(BenchmarkError, match="holds records of another plan, device, version or set of models"):
        other.begin()


def test_the_whole_comparison_fits_into_an_hour(tmp_path: Path) -> None:
    for plan, seconds_max in ((FULL, 3_600), (QUICK, 300)):
        collector = ComparisonCollector(ComparisonRecords(plan, tmp_path), tmp_path, None, StageBar(Console(), 0.0))
        assert sum(step.seconds for step in collector.steps()) < seconds_max


def test_two_servers_are_compared_on_the_same_requests() -> None:
    """Ours took part in a third repeat, which was hard; the other did not."""
    found = figures.points(
        [measured(OURS, 0.5, i, kept) for i, kept in enumerate((5, 4, 0))]
        + [measured("naive", 0.5, i, kept) for i, kept in enumerate((4, 2))]
    )
    pair = PairedComparison(found, OURS, "naive", 0.5)
    assert pair.ratio(met, 0.0) == 18 / 12
    assert pair.ratio(missed, 0.0) == 2 / 8
    assert pair.ratio(met_of("2"), 0.0) == 9 / 6
    assert pair.ratio(met_of("3"), 7.0) == 7.0
    assert pair.kept_more() == pytest.approx((0.3, 0.1))
    assert not PairedComparison(found, OURS, "naive", 0.7)


def test_tables_are_of_the_repeats_that_all_took_part_in() -> None:
    plan = QUICK.__class__(servers=("naive", OURS), arrivals=("poisson",), repeats=1, close_repeats=2, loads=(0.5,))
    turns = [ServerTurn(0, "poisson", "naive"), ServerTurn(0, "poisson", OURS), ServerTurn(1, "poisson", OURS)]
    kept = (1, 5, 0)
    recorded = {
        t: TurnRecord([measured(t.server, 0.5, t.repeat, k)], [0.0], 100.0) for t, k in zip(turns, kept, strict=True)
    }
    found = Found(plan, "poisson", recorded)
    assert found.at(OURS, 0.5).met() == 1.0


def test_what_class_1_misses_where_the_other_is_refused_stands_beside_what_it_misses() -> None:
    servers = ("stock, 1 instance", OURS, REFUSED)
    plan = QUICK.__class__(servers=servers, arrivals=("poisson",), repeats=1, close_repeats=1, loads=(0.5,))
    kept = {"stock, 1 instance": 1, OURS: 2, REFUSED: 4}
    recorded = {
        ServerTurn(0, "poisson", server): TurnRecord([measured(server, 0.5, 0, count)], [0.0], 100.0)
        for server, count in kept.items()
    }
    text = comparison_report(plan, RunManifest(None, "cpu", 2), {}, recorded, None, {"poisson": []}, Path())
    assert "| 0.5 | 0.75 | 2.00 | 2.00 (stock, 1 instance) | – | 60.0 | 20.0 | 2.00 |" in text
    assert f"*{REFUSED}*: +" not in text


def test_servers_that_are_close_take_more_turns(tmp_path: Path) -> None:
    plan = QUICK.__class__(servers=("stock, rate limiter", "naive", OURS), repeats=2, close_repeats=3)
    turns = [
        (turn.repeat, turn.server)
        for turn in ComparisonRecords(plan, tmp_path / "records").turns()
        if turn.arrivals == "trace"
    ]
    assert turns == [
        *[(0, s) for s in ("stock, rate limiter", "naive", OURS)],
        *[(1, s) for s in ("naive", OURS, "stock, rate limiter")],
        *[(2, s) for s in ("naive", OURS)],
    ]


def test_a_turn_lost_in_the_middle_is_missing(tmp_path: Path) -> None:
    records = ComparisonRecords(QUICK, tmp_path)
    first, second, *_ = records.turns()
    records.keep(second.file, TurnRecord([], [], 100.0))
    assert records.missing()[0] == first == ServerTurn(0, "poisson", QUICK.servers[0])
    assert second not in records.missing()


def test_a_scheduler_process_runs_the_rival_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(scheduler_factory.VARIABLE, "benchmarks.rivals:scheduler_by_name")
    monkeypatch.setenv(NAME_VARIABLE, "naive")
    make = scheduler_factory.scheduler_factory()
    found = make(2, None, Isochrone(), UpperBound(), transfers=TransferModel(), cores=None)
    assert isinstance(found.policy, LeastSlack)
    assert isinstance(found.latency.predictor, MovingAverage)
