"""Each rival is what its name says, on requests whose best order is known; and the comparison's command."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from backend.load.arrivals import Arrival, Traffic, arrivals
from backend.load.outcomes import summarise
from backend.simulation.contention import LinearContention
from backend.simulation.device import VirtualDevice
from backend.simulation.simulator import SimulatedModel, SimulationResult, simulate
from benchmarks.policies.__main__ import main
from benchmarks.policies.starvation import CASES
from benchmarks.rivals import RIVALS
from predictor.samples import encode_sample
from profiler.profile_file import write_profile
from tests.fakes.builders import profile, profile_file
from tests.fakes.contended_samples import Contention, generate

SAMPLES = generate(Contention("additive", lanes=2, count=200))
TRUTH = LinearContention((0.4, 0.1, 0.4))


def models(max_batch_size: int = 8) -> list[SimulatedModel]:
    return [
        SimulatedModel("a", profile(10.0, 0.5, 0.2, 0.4), max_batch_size, rejects=True),
        SimulatedModel("b", profile(20.0, 0.9, 0.1, 0.6), max_batch_size, rejects=True),
    ]


def run(name: str, plan: tuple[Arrival, ...] | list[Arrival], lanes: int = 2, most: int = 8) -> SimulationResult:
    rival = RIVALS[name]
    scheduler = rival.scheduler(lanes, TRUTH, SAMPLES)
    return simulate(rival.models(models(most)), rival.plan(plan), scheduler, VirtualDevice(TRUTH, 0))


def busy(load: float, seconds: float = 8.0) -> tuple[Arrival, ...]:
    traffic = [Traffic("a", 70.0 * load, 60.0, 1), Traffic("b", 35.0 * load, 120.0, 2)]
    return arrivals(traffic, seconds, 5, "poisson")


@pytest.mark.parametrize("name", RIVALS)
def test_every_request_is_answered_or_rejected(name: str) -> None:
    plan = busy(1.5, 3.0)
    ran = run(name, plan)
    assert len(ran.requests) == len(RIVALS[name].plan(plan))
    if RIVALS[name].in_order:
        assert all(r.answered_s is not None for r in ran.requests)
    assert sum(r.answered_s is not None for r in ran.requests) > 0.2 * len(plan)


@pytest.mark.parametrize("name", ["edf", "naive", "one at a time"])
def test_a_deadline_first_rival_takes_the_tightest_first(name: str) -> None:
    """On one lane, while the first runs, three more wait."""
    plan = [Arrival(0.0, "b", 500.0), Arrival(0.001, "a", 400.0), Arrival(0.002, "b", 90.0), Arrival(0.003, "a", 200.0)]
    ran = run(name, plan, lanes=1, most=1)
    order = sorted(range(4), key=lambda i: ran.requests[i].answered_s or 9.0)
    assert order == [0, 2, 3, 1]


def test_class_1_alone_is_sent_nothing_else() -> None:
    plan = busy(1.5, 1.0)
    assert {a.priority for a in plan} == {1, 2}
    assert list(RIVALS["class 1 alone"].plan(plan)) == [a for a in plan if a.priority == 1]


def test_where_class_2_is_refused_class_1_fares_as_if_it_were_not_there() -> None:
    plan = busy(1.5, 3.0)
    beside = {r.arrival: r for r in run("isochrone, class 2 refused", plan).requests}
    alone = run("isochrone", [a for a in plan if a.priority == 1]).requests
    assert all(beside[a].answered_s is None for a in plan if a.priority == 2)
    assert [beside[r.arrival].answered_s for r in alone] == [r.answered_s for r in alone]


def test_the_higher_class_goes_first_where_a_rival_knows_of_classes() -> None:
    plan = [Arrival(0.0, "b", 500.0), Arrival(0.001, "a", 100.0, 2), Arrival(0.002, "b", 300.0, 1)]
    second = {name: run(name, plan, lanes=1, most=1).requests[2].answered_s or 9.0 for name in ("naive", "edf")}
    assert second["naive"] < second["edf"]


def test_two_levels_keep_the_low_one_back_while_a_high_one_is_held() -> None:
    """On two lanes: the high one would make the one that runs miss, so it is held; the low one would not."""
    plan = [Arrival(0.0, "a", 18.0), Arrival(0.001, "b", 500.0), Arrival(0.002, "a", 500.0, 2)]
    ours, strait = ([r.answered_s or 9.0 for r in run(n, plan, most=1).requests] for n in ("isochrone, RLS", "strait"))
    assert ours[1] > ours[2] < strait[2]
    assert strait[0] == pytest.approx(0.010)
    assert strait[0] < ours[0]


def test_prediction_and_policy_beat_stock_in_an_overload() -> None:
    plan = busy(2.0)
    met = {n: summarise(run(n, plan, most=1).outcomes(), 8.0).met_share for n in ("in order", "isochrone", "oracle")}
    assert met["in order"] < 0.5 * met["isochrone"]
    assert met["isochrone"] > 0.8 * met["oracle"]


def test_the_command_prints_and_writes_its_table(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "test-set-3-2-lanes.jsonl").write_bytes(b"".join(map(encode_sample, SAMPLES)))
    for name in ("m0", "m1", "m2", "m3"):
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        write_profile(tmp_path / "models" / name / "1" / "profile.json", profile_file(name, (1, 10, 11), (8, 40, 41)))
    app = typer.Typer()
    app.command()(main)
    written = tmp_path / "policies.md"
    options = ["--records", str(tmp_path), "--load", "1.2", "--seconds", "2", "--seeds", "1", "--starvation", "5"]
    result = CliRunner().invoke(app, [*options, "--out", str(written)])
    assert result.exit_code == 0, result.output
    text = written.read_text()
    for name in RIVALS:
        assert f"| *{name}* |" in text
    assert "Of the way from stock to the oracle, isochrone goes " in text
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `on_miss")] == [
        f"| {case}" for case in CASES
    ]
    wrong = CliRunner().invoke(app, [*options, "--rival", "luck"])
    assert wrong.exit_code == 2
    missing = CliRunner().invoke(app, ["--records", str(tmp_path / "nowhere")])
    assert missing.exit_code == 2
