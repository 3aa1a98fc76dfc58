"""Routers of an emulated fleet: its devices are the law's, the oracle sees them as they are; the command."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from backend.load.arrivals import Arrival
from benchmarks.fleet.__main__ import main
from benchmarks.fleet.fleet_run import FleetRun, SnapshotTiming
from benchmarks.fleet.layout import OVERHEAD_NS, fleet_layout
from benchmarks.fleet.oracle import OracleRouter
from benchmarks.fleet.plan import ALL_ROUTERS, POISSON, QUICK
from benchmarks.fleet.routers import OURS, IsochroneRouter, RoundRobin
from benchmarks.fleet.runs import FleetCase, run_case

LAYOUT = fleet_layout(0, 8, 12)
MODEL = LAYOUT.models[0]


def test_a_request_alone_takes_its_solo_latency_on_the_device_that_it_was_sent_to() -> None:
    (found,) = FleetRun(LAYOUT, RoundRobin(LAYOUT), 2, SnapshotTiming()).run([Arrival(0.0, MODEL.name, 1e6)], 5.0)
    assert found.device in LAYOUT.holders_of[MODEL.name]
    least_s = (MODEL.solo_ns(LAYOUT.gpus[found.device]) + OVERHEAD_NS) / 1e9
    assert found.answered_s == pytest.approx(least_s, rel=0.1)


@pytest.mark.parametrize("router", ALL_ROUTERS)
def test_every_request_is_answered_by_a_device_that_holds_its_model(router: str) -> None:
    plan = LAYOUT.requests(0.6, 0.5, POISSON)
    found = FleetRun(LAYOUT, ALL_ROUTERS[router](LAYOUT), 2, SnapshotTiming(100.0, 0.1)).run(plan, 15.0)
    assert [request.arrival for request in found] == list(plan)
    assert all(request.device in LAYOUT.holders_of[request.arrival.model] for request in found)
    assert all(request.arrival.at_s < request.answered_s < inf for request in found)


def test_the_same_case_gives_the_same_figures() -> None:
    case = FleetCase(OURS, 1, 1.0, POISSON, SnapshotTiming())
    first, second = run_case(QUICK, case), run_case(QUICK, case)
    assert (first.met, first.degradation_p90) == (second.met, second.degradation_p90)


def test_the_core_that_routes_stays_consistent_with_lost_snapshots() -> None:
    router = IsochroneRouter(LAYOUT)
    FleetRun(LAYOUT, router, 2, SnapshotTiming(30.0, 0.3)).run(LAYOUT.requests(1.3, 0.5, POISSON), 0.7)
    router.fleet.check()
    assert router.fleet.picks > 50


def test_a_lost_snapshot_never_comes() -> None:
    class Counting(RoundRobin):
        """Counts snapshots."""

        needs_snapshots = True
        seen = 0

        def observe(self, *_: object) -> None:
            self.seen += 1

    def seen(lost: float) -> tuple[int, int]:
        router = Counting(LAYOUT)
        run = FleetRun(LAYOUT, router, 2, SnapshotTiming(20.0, lost))
        run.run([Arrival(2.0, MODEL.name, 1e6)], 4.0)  # nobody reads those after the last request
        return router.seen, run.snapshots

    arrived, made = seen(0.0)
    assert made == pytest.approx(8 * 2.0 / 0.02, abs=8)
    assert made - arrived <= 2 * 8  # half a period on their way
    assert seen(0.5)[0] == pytest.approx(made / 2, rel=0.15)


def test_the_oracle_sees_at_once_that_a_device_is_busy() -> None:
    """The second request would be late behind the first one on the fastest device."""
    solo_ms = sorted({MODEL.solo_ns(LAYOUT.gpus[device]) / 1e6 for device in LAYOUT.holders_of[MODEL.name]})
    slo_ms = 1.2 * solo_ms[1]
    assert slo_ms < 2 * solo_ms[0]
    plan = [Arrival(0.0, MODEL.name, slo_ms), Arrival(0.001, MODEL.name, slo_ms)]
    first, second = FleetRun(LAYOUT, OracleRouter(LAYOUT), 1, SnapshotTiming()).run(plan, 5.0)
    assert MODEL.solo_ns(LAYOUT.gpus[first.device]) / 1e6 == solo_ms[0]
    assert second.device != first.device


def test_the_quick_command_writes_its_report_and_goes_on_where_it_was(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    out, folder = tmp_path / "fleet.md", tmp_path / "records"
    options = ["--quick", "--seeds", "1", "--workers", "1", "--folder", str(folder), "--out", str(out)]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    text = out.read_text()
    assert "Emulated, in virtual time" in text
    assert all(f"| *{router}* |" in text for router in ALL_ROUTERS)
    assert "nan" not in text
    (folder / "bursts" / "0.json").unlink()
    kept = (folder / "loads" / "0.json").stat().st_mtime_ns
    out.unlink()
    assert CliRunner().invoke(app, options).exit_code == 0
    assert (folder / "loads" / "0.json").stat().st_mtime_ns == kept
    assert out.is_file()
