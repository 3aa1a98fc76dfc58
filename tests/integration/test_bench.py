"""Load on several servers: options, figures of the repeats, files and plots, and which scheduler a process runs."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from backend.commands.bench import BenchOptions, run_bench
from backend.errors import ConfigError
from backend.load import report
from backend.load.bench import Bench, Schedule
from backend.load.options import numbers
from backend.load.outcomes import Measured, Outcome, Status
from backend.load.plots import draw
from backend.load.workload import Asked, Workload
from backend.scheduler.core import Scheduler
from backend.scheduler_process import scheduler_factory as variant
from backend.simulation.contention import Linear
from benchmarks.compare.collect import remaining_s
from benchmarks.compare.plan import FULL, QUICK
from benchmarks.compare.records import Machine, Recorded, Records, Turn
from benchmarks.compare.report import Found
from benchmarks.compare.report import report as comparison_report
from benchmarks.compare.servers import OURS, REFUSED, SERVERS
from benchmarks.compare.spent import Spent, spent
from benchmarks.compare.standing import Pair, met, met_of, missed
from benchmarks.compare.virtual import kept_in_virtual_time, passed
from benchmarks.errors import BenchmarkError
from benchmarks.prometheus import parse
from benchmarks.rivals import NAME_VARIABLE, LeastSlack, MovingAverage
from predictor.bound import UpperBound
from predictor.learners.isochrone import Isochrone
from predictor.transfers import TransferModel
from profiler.profile_file import FeatureShares, ProfileEntry, ProfileFile


def outcome(latency_ms: float, priority: int, status: Status = "ok") -> Outcome:
    return Outcome(f"m{priority}", 1.0, 1.001, 1.0 + latency_ms / 1e3, 50.0, priority, status)


def measured(target: str, load: float, repeat: int, kept: int) -> Measured:
    """Ten requests of two classes; of each class so many keep their deadline."""
    outcomes = [outcome(10.0 if i < kept else 90.0, priority) for priority in (1, 2) for i in range(5)]
    return Measured(target, load, repeat, 2.0, outcomes)


FOUND = [measured("a", 0.5, i, kept) for i, kept in enumerate((5, 3, 4))] + [measured("b", 0.5, 0, 1)]


@pytest.mark.parametrize("text", ["0", "-1", "x", "1,", "nan", "inf", "1e9", ""])
def test_a_load_must_be_a_number_above_nothing(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--load must be numbers above 0 to 1000 with commas between, got '"):
        numbers("--load", text, 0.0, 1e3)


@pytest.mark.parametrize("servers", [["here"], ["x=here"], ["=1.2.3.4:1"], [":8001"], ["a=h:1", "a=h:2"]])
def test_a_server_is_named_by_its_address(tmp_path: Path, servers: list[str]) -> None:
    workload = tmp_path / "workload.json"
    workload.write_text('{"models": [{"model": "m", "rate_per_s": 1}]}')
    with pytest.raises(ConfigError, match=r"--server must be HOST:PORT|two servers are named 'a'"):
        run_bench(BenchOptions(workload, servers))


def test_repeats_are_told_by_their_median_and_range() -> None:
    here = report.cell(report.points(FOUND), "a", 0.5)
    assert here.met() == 0.8
    assert here.range(lambda p: p.all.met_share) == (0.6, 1.0)
    assert here.class_met("2") == 0.8
    assert here.total(lambda p: p.all.requests) == 30
    assert not report.cell(report.points(FOUND), "a", 0.7)
    (row, other) = zip(
        *(column.cells for column in report.table(report.points(FOUND), ["a", "b"]).columns), strict=True
    )
    assert row[:5] == ("0.5", "a", "30", "80.0 (60–100)", "80.0")
    assert other[:4] == ("0.5", "b", "10", "20.0")


def test_every_request_is_written(tmp_path: Path) -> None:
    report.make_folder(tmp_path / "out")
    report.write(tmp_path / "out", report.points(FOUND), FOUND, {"seed": 1})
    rows = list(csv.DictReader((tmp_path / "out" / report.REQUESTS).read_text().splitlines()))
    assert len(rows) == sum(len(m.outcomes) for m in FOUND)
    assert rows[0] | {"answered_s": ""} == {
        "server": "a", "load": "0.5", "repeat": "0", "model": "m1", "priority_class": "1", "slo_ms": "50",
        "intended_s": "1.000000", "sent_s": "1.001000", "answered_s": "", "status": "ok", "error": "",
    }  # fmt: skip
    data = json.loads((tmp_path / "out" / report.RESULTS).read_text())
    assert data["conditions"] == {"seed": 1}
    assert [p["all"]["met_share"] for p in data["points"]] == [1.0, 0.6, 0.8, 0.2]
    (tmp_path / "file").touch()
    for refuses in (report.make_folder, lambda folder: report.write(folder, [], [], {})):
        with pytest.raises(ConfigError, match=r"'.*file' cannot be written to"):
            refuses(tmp_path / "file")


def test_plots_are_drawn(tmp_path: Path) -> None:
    for path in draw(report.points(FOUND), FOUND, ["a", "b"], tmp_path):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_servers_take_turns_and_nobody_always_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[tuple[str, float, int]] = []
    monkeypatch.setattr(Bench, "warm_up", lambda *_: None)
    monkeypatch.setattr(Bench, "measure", lambda _self, name, _url, load, repeat: turns.append((name, load, repeat)))
    schedule = Schedule(Workload((Asked("m", 1.0),)), None, [0.5, 1.0], 2, 1)
    Bench(schedule, {}, lambda *_: None, lambda *_: None).run({"a": "x", "b": "y"})
    assert turns == [
        ("a", 0.5, 0), ("b", 0.5, 0), ("b", 1.0, 0), ("a", 1.0, 0),
        ("a", 0.5, 1), ("b", 0.5, 1), ("b", 1.0, 1), ("a", 1.0, 1),
    ]  # fmt: skip


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
    found = spent(0.5, outcomes, parse(text), lane_s=0.1)
    assert found is not None
    parts = (found.outside_ms, found.queue_ms, found.execution_ms, found.around_ms)
    assert parts == pytest.approx((10.0, 10.0, 18.0, 2.0))
    assert (found.latency_ms, found.lanes_busy) == pytest.approx((40.0, 0.18))
    assert spent(0.5, outcomes[2:], parse(text), lane_s=0.1) is None
    assert spent(0.5, outcomes, parse(""), lane_s=0.1) is None


def test_the_same_requests_in_virtual_time() -> None:
    """A request every 20 ms of a model that takes 10 ms, alone: what is added decides whether 15 ms suffice."""
    ms, about = 1_000_000, (9_900_000, 10_100_000)
    entry = ProfileEntry(1, 10 * ms, about, 10 * ms, about, 100.0, FeatureShares(0.5, 0.1, 0.1), 100, 1, 0, True)
    profiles = {"m1": ProfileFile(1, "m1", "1", "cpu", "test", "0", "graph", (entry,))}
    sent = [Outcome("m1", 0.02 * i, 0.02 * i, 0.02 * i, 15.0, 1, "ok") for i in range(50)]
    repeats = [Measured(OURS, 0.5, i, 1.0, sent) for i in range(3)]
    for outside_ms, kept in ((3.0, 1.0), (6.0, 0.0)):
        costs = Spent(0.5, outside_ms, 0.0, 10.0, 1.0, 0.5)
        assert kept_in_virtual_time([(m, costs) for m in repeats], profiles, 2, Linear()) == kept
    # More than one lane keeps up with: in order of arrival all wait, while a scheduler that refuses keeps some in time.
    crowded = [Measured(OURS, 0.5, 0, 1.0, [replace(o, slo_ms=45.0) for o in sent])]
    slow, free = Linear(residuals=(2.5,)), Spent(0.5, 0.0, 0.0, 10.0, 0.0, 0.5)
    fifo, aware = (
        kept_in_virtual_time([(m, free) for m in crowded], profiles, 1, slow, rival) for rival in ("stock", "ours")
    )
    assert fifo < aware


def test_a_burst_waits_for_itself_on_its_way_in() -> None:
    apart = [0.0, 1.0, 2.0]
    assert passed(apart, 0.003) == pytest.approx([0.003, 1.003, 2.003])
    burst = [1.0, 1.0, 1.0, 2.0]  # at 2 ms each: 2, 4, 6 and 2 ms late
    assert passed(burst, 0.0035) == pytest.approx([1.002, 1.004, 1.006, 2.002])
    assert passed(burst, 0.0) == passed(burst, -0.001) == pytest.approx(burst)


def test_the_comparison_goes_on_where_it_was_and_reports(tmp_path: Path) -> None:
    records = Records(QUICK, tmp_path / "records")
    records.begin()
    assert {turn.server for turn in records.missing()} == set(QUICK.servers) <= set(SERVERS)
    for i, turn in enumerate(records.turns()):
        found = [measured(turn.server, load, turn.repeat, 4 - i) for load in QUICK.loads]
        records.keep(turn, Recorded(found, [0.02] * len(found), 90.0 + i, [0.05, 0.07] if turn.server == OURS else []))
    again = Records(QUICK, tmp_path / "records")
    again.begin()
    assert not again.missing()
    recorded = again.recorded()
    text = comparison_report(QUICK, Machine("cpu", 2), {}, recorded, None, {"poisson": [tmp_path / "p.png"]}, tmp_path)
    assert "| **isochrone** | 40 (40 / 40) | 40 (40 / 40) |" in text
    assert "| 0.7 | 3.00 | – | 0.50 (stock, rate limiter) | 0.67 | 60.0 | – | 0.50 |" in text
    assert "![p](p.png)" in text
    assert "the closed-loop capacity, measured anew for each repeat (90 to 93 requests/s)" in text
    assert "5.0 % at load 0.7 (at most 5.0), 7.0 % at load 1.1 (at most 7.0)" in text
    other = Records(QUICK.__class__(repeats=9), tmp_path / "records")
    with pytest.raises(BenchmarkError, match="holds records of another plan or machine"):
        other.begin()


def test_the_whole_comparison_fits_into_an_hour(tmp_path: Path) -> None:
    assert remaining_s(Records(FULL, tmp_path)) < 3_600
    assert remaining_s(Records(QUICK, tmp_path)) < 300


def test_two_servers_are_compared_on_the_same_requests() -> None:
    """Ours took part in a third repeat, which was hard; the other did not."""
    found = report.points(
        [measured(OURS, 0.5, i, kept) for i, kept in enumerate((5, 4, 0))]
        + [measured("naive", 0.5, i, kept) for i, kept in enumerate((4, 2))]
    )
    pair = Pair(found, OURS, "naive", 0.5)
    assert pair.ratio(met, 0.0) == 18 / 12
    assert pair.ratio(missed, 0.0) == 2 / 8
    assert pair.ratio(met_of("2"), 0.0) == 9 / 6
    assert pair.ratio(met_of("3"), 7.0) == 7.0
    assert pair.kept_more() == pytest.approx((0.3, 0.1))
    assert not Pair(found, OURS, "naive", 0.7)


def test_tables_are_of_the_repeats_that_all_took_part_in() -> None:
    plan = QUICK.__class__(servers=("naive", OURS), arrivals=("poisson",), repeats=1, close_repeats=2, loads=(0.5,))
    turns = [Turn(0, "poisson", "naive"), Turn(0, "poisson", OURS), Turn(1, "poisson", OURS)]
    kept = (1, 5, 0)
    recorded = {
        t: Recorded([measured(t.server, 0.5, t.repeat, k)], [0.0], 100.0) for t, k in zip(turns, kept, strict=True)
    }
    found = Found(plan, "poisson", recorded)
    assert found.at(OURS, 0.5).met() == 1.0


def test_what_class_1_misses_where_the_other_is_refused_stands_beside_what_it_misses() -> None:
    servers = ("stock, 1 instance", OURS, REFUSED)
    plan = QUICK.__class__(servers=servers, arrivals=("poisson",), repeats=1, close_repeats=1, loads=(0.5,))
    kept = {"stock, 1 instance": 1, OURS: 2, REFUSED: 4}
    recorded = {
        Turn(0, "poisson", server): Recorded([measured(server, 0.5, 0, count)], [0.0], 100.0)
        for server, count in kept.items()
    }
    text = comparison_report(plan, Machine("cpu", 2), {}, recorded, None, {"poisson": []}, Path())
    assert "| 0.5 | 0.75 | 2.00 | 2.00 (stock, 1 instance) | – | 60.0 | 20.0 | 2.00 |" in text
    assert f"*{REFUSED}*: +" not in text


def test_servers_that_are_close_take_more_turns(tmp_path: Path) -> None:
    plan = QUICK.__class__(servers=("stock, rate limiter", "naive", OURS), repeats=2, close_repeats=3)
    turns = [
        (turn.repeat, turn.server) for turn in Records(plan, tmp_path / "records").turns() if turn.arrivals == "trace"
    ]
    assert turns == [
        *[(0, s) for s in ("stock, rate limiter", "naive", OURS)],
        *[(1, s) for s in ("naive", OURS, "stock, rate limiter")],
        *[(2, s) for s in ("naive", OURS)],
    ]


def test_a_turn_lost_in_the_middle_is_missing(tmp_path: Path) -> None:
    records = Records(QUICK, tmp_path)
    first, second, *_ = records.turns()
    records.keep(second, Recorded([], [], 100.0))
    assert records.missing()[0] == first == Turn(0, "poisson", QUICK.servers[0])
    assert second not in records.missing()


def test_a_device_runs_the_scheduler_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert variant.scheduler_of_environment() is Scheduler
    monkeypatch.setenv(variant.VARIABLE, "benchmarks.rivals:scheduler_by_name")
    monkeypatch.setenv(NAME_VARIABLE, "naive")
    found = variant.scheduler_of_environment()(
        2, None, Isochrone(), UpperBound(), transfers=TransferModel(), cores=None
    )
    assert isinstance(found.policy, LeastSlack)
    assert isinstance(found.policy.predictor, MovingAverage)


@pytest.mark.parametrize("named", ["nowhere:f", "benchmarks.rivals:none", "benchmarks.rivals", ":f"])
def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv(variant.VARIABLE, named)
    with pytest.raises(ConfigError, match=f"ISOCHRONE_SCHEDULER must be module:function, got '{named}'"):
        variant.scheduler_of_environment()
