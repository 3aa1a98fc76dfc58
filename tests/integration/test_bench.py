"""Load on several servers: options, figures of the repeats, files and plots; which scheduler a process runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from backend.commands.bench import run_bench
from backend.errors import ConfigError
from backend.load import figures
from backend.load.arrivals import Traffic
from backend.load.interleaved_load import Bench, Schedule
from backend.load.options import numbers
from backend.load.outcomes import MeasuredLoad, Outcome, Status
from backend.load.plots import draw
from backend.load.workload import Workload
from backend.scheduler.core import Observer, Scheduler
from backend.scheduler_process import scheduler_factory
from predictor.bound import UpperBound
from predictor.learners.isochrone import Isochrone
from predictor.learners.learner import Forecaster
from predictor.transfers import TransferModel


def outcome(latency_ms: float, priority: int, status: Status = "ok") -> Outcome:
    return Outcome(f"m{priority}", 1.0, 1.001, 1.0 + latency_ms / 1e3, 50.0, priority, status)


def measured(target: str, load: float, repeat: int, kept: int) -> MeasuredLoad:
    """Ten requests of two classes; of each class so many keep their deadline."""
    outcomes = [outcome(10.0 if i < kept else 90.0, priority) for priority in (1, 2) for i in range(5)]
    return MeasuredLoad(target, load, repeat, 2.0, outcomes)


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
        run_bench(workload, servers)


def test_repeats_are_told_by_their_median_and_range() -> None:
    here = figures.cell(figures.points(FOUND), "a", 0.5)
    assert here.met() == 0.8
    assert here.range(lambda p: p.all.met_share) == (0.6, 1.0)
    assert here.class_met("2") == 0.8
    assert here.total(lambda p: p.all.requests) == 30
    assert not figures.cell(figures.points(FOUND), "a", 0.7)
    (row, other) = zip(
        *(column.cells for column in figures.table(figures.points(FOUND), ["a", "b"]).columns), strict=True
    )
    assert row[:5] == ("0.5", "a", "30", "80.0 (60–100)", "80.0")
    assert other[:4] == ("0.5", "b", "10", "20.0")


def test_every_request_is_written(tmp_path: Path) -> None:
    figures.make_folder(tmp_path / "out")
    figures.write(tmp_path / "out", figures.points(FOUND), FOUND, {"seed": 1})
    rows = list(csv.DictReader((tmp_path / "out" / figures.REQUESTS).read_text().splitlines()))
    assert len(rows) == sum(len(m.outcomes) for m in FOUND)
    assert rows[0] | {"answered_s": ""} == {
        "server": "a", "load": "0.5", "repeat": "0", "model": "m1", "priority_class": "1", "slo_ms": "50",
        "intended_s": "1.000000", "sent_s": "1.001000", "answered_s": "", "status": "ok", "error": "",
    }  # fmt: skip
    data = json.loads((tmp_path / "out" / figures.RESULTS).read_text())
    assert data["conditions"] == {"seed": 1}
    assert [p["all"]["met_share"] for p in data["points"]] == [1.0, 0.6, 0.8, 0.2]
    (tmp_path / "file").touch()
    for refuses in (figures.make_folder, lambda folder: figures.write(folder, [], [], {})):
        with pytest.raises(ConfigError, match=r"'.*file' cannot be written to"):
            refuses(tmp_path / "file")


def test_plots_are_drawn(tmp_path: Path) -> None:
    for path in draw(figures.points(FOUND), FOUND, ["a", "b"], tmp_path):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_servers_take_turns_and_nobody_always_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[tuple[str, float, int]] = []
    monkeypatch.setattr(Bench, "warm_up", lambda *_: None)
    monkeypatch.setattr(Bench, "measure", lambda _self, name, _url, load, repeat: turns.append((name, load, repeat)))
    schedule = Schedule(Workload((Traffic("m", 1.0),)), None, [0.5, 1.0], 2, 1)
    Bench(schedule, {}, lambda *_: None, lambda *_: None).run({"a": "x", "b": "y"})
    assert turns == [
        ("a", 0.5, 0), ("b", 0.5, 0), ("b", 1.0, 0), ("a", 1.0, 0),
        ("a", 0.5, 1), ("b", 0.5, 1), ("b", 1.0, 1), ("a", 1.0, 1),
    ]  # fmt: skip


class MarkedScheduler(Scheduler):
    """The production scheduler by another name."""


def marked_scheduler(
    lanes: int,
    observer: Observer | None,
    predictor: Forecaster,
    bound: UpperBound,
    *,
    transfers: TransferModel,
    cores: int | None,
) -> Scheduler:
    """A factory for ISOCHRONE_SCHEDULER."""
    return MarkedScheduler(lanes, observer, predictor, bound, transfers=transfers, cores=cores)


def test_a_device_runs_the_scheduler_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    default = scheduler_factory.scheduler_factory()
    assert type(default(2, None, Isochrone(), UpperBound(), transfers=TransferModel(), cores=None)) is Scheduler
    monkeypatch.setenv(scheduler_factory.VARIABLE, f"{__name__}:marked_scheduler")
    make = scheduler_factory.scheduler_factory()
    found = make(2, None, Isochrone(), UpperBound(), transfers=TransferModel(), cores=None)
    assert isinstance(found, MarkedScheduler)


@pytest.mark.parametrize("named", ["nowhere:f", f"{__name__}:none", __name__, ":f"])
def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv(scheduler_factory.VARIABLE, named)
    with pytest.raises(ConfigError, match=f"ISOCHRONE_SCHEDULER must be module:function, got '{named}'"):
        scheduler_factory.scheduler_factory()
