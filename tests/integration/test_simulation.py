"""The scheduler in virtual time against what can be worked out by hand, and the command around it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from backend.commands import main as cli
from backend.load.arrivals import PROCESSES, Arrival, Traffic, along, arrivals, read_trace
from backend.load.outcomes import summarise
from backend.scheduler.core import Scheduler
from backend.simulation.contention import LinearContention, Truth, learned
from backend.simulation.device import VirtualDevice
from backend.simulation.simulator import SimulatedModel, SimulationResult
from backend.simulation.simulator import simulate as run_simulation
from predictor.features import exposure
from predictor.samples import co_runners_of, encode_sample, own_of
from predictor.slowdown_function import ZERO_SUMS, sums_of
from profiler.profile_file import write_profile
from tests.fakes.builders import profile, profile_file
from tests.fakes.contended_samples import Contention, generate

PLAIN = SimulatedModel("m", profile(10.0, 0.5, 0.2, 0.4), max_batch_size=1)
NO_SLO = 1e12


def simulate(
    models: list[SimulatedModel],
    plan: Sequence[Arrival],
    lanes: int,
    truth: Truth,
    *,
    seed: int = 0,
    overhead_ns: int = 0,
) -> SimulationResult:
    return run_simulation(models, plan, Scheduler(lanes), VirtualDevice(truth, seed), overhead_ns)


def at(*seconds: float, model: str = "m", slo_ms: float = NO_SLO) -> list[Arrival]:
    return [Arrival(s, model, slo_ms) for s in seconds]


def answered(ran: SimulationResult) -> list[float]:
    """Seconds."""
    return [r.answered_s for r in ran.requests if r.answered_s is not None]


def test_a_batch_alone_takes_its_solo_time_and_the_overhead() -> None:
    ran = simulate([PLAIN], at(0.1, 0.5), 1, LinearContention(), overhead_ns=2_000_000)
    assert answered(ran) == pytest.approx([0.112, 0.512])
    assert ran.batches == 2
    assert ran.busy_s == pytest.approx(0.024)


def test_one_lane_is_a_queue() -> None:
    """Each starts when it is there and the one before it is done (Lindley)."""
    plan = arrivals([Traffic("m", 80.0, NO_SLO)], 20.0, 3, "poisson")
    ran = simulate([PLAIN], plan, 1, LinearContention())
    done, expected = 0.0, []
    for arrival in plan:
        done = max(done, arrival.at_s) + 0.010
        expected.append(done)
    assert len(plan) > 1_400
    assert answered(ran) == pytest.approx(expected, abs=1e-5)


def test_two_that_overlap_slow_each_other_down_for_as_long_as_they_do() -> None:
    """From 5 ms on at 1 + 0.5: the first has 5 ms left, which take 7.5; of the other's 10 then 5 are left, alone."""
    ran = simulate([replace(PLAIN, max_batch_size=1)], at(0.0, 0.005), 2, LinearContention((1.0, 0.0, 0.0)))
    assert answered(ran) == pytest.approx([0.0125, 0.0175])


def test_a_rejected_request_is_not_answered() -> None:
    late = at(0.0) + at(0.001, slo_ms=5.0)
    ran = simulate([replace(PLAIN, rejects=True)], late, 1, LinearContention())
    summary = summarise(ran.outcomes(), 1.0)
    assert (summary.met, summary.missed, summary.rejected) == (1, 0, 1)


def plan(seed: int = 1) -> tuple[Arrival, ...]:
    traffic = [Traffic("a", 60.0, 60.0), Traffic("b", 40.0, 90.0, 2), Traffic("c", 20.0, 300.0, 2)]
    return arrivals(traffic, 10.0, seed, "bursty")


def models() -> list[SimulatedModel]:
    return [
        SimulatedModel("a", profile(10.0, 0.5, 0.2, 0.4)),
        SimulatedModel("b", profile(15.0, 0.9, 0.1, 0.1), rejects=True),
        SimulatedModel("c", profile(40.0, 0.2, 0.5, 0.9)),
    ]


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_the_same_seed_is_the_same_simulation(lanes: int) -> None:
    truth = LinearContention((0.3, 0.1, 0.5), (0.9, 1.0, 1.2))
    one, two = (simulate(models(), plan(), lanes, truth, seed=4) for _ in range(2))
    assert one.requests == two.requests
    assert one.predicted == two.predicted
    other = simulate(models(), plan(), lanes, truth, seed=5)
    assert other.requests != one.requests
    for request in one.requests:
        only = request.arrival.model == "b"  # may reject
        assert request.answered_s is not None or only
        assert request.answered_s is None or request.answered_s > request.arrival.at_s


def test_one_more_lane_keeps_more_deadlines() -> None:
    truth = LinearContention((0.1, 0.0, 0.1))
    one, three = (summarise(simulate(models(), plan(), n, truth).outcomes(), 10.0).met_share for n in (1, 3))
    assert one < 0.9
    assert three > 0.97


def test_contention_is_learned_from_samples() -> None:
    samples = generate(Contention("additive", lanes=3, count=1_500))
    truth = learned(samples)
    errors = []
    for sample in samples[-200:]:
        own = own_of(sample)
        errors.append(abs(truth.slowdown_function(own).slowdown(ZERO_SUMS) - 1.0))
    assert float(np.median(errors)) < 0.15
    assert float(np.exp(np.mean(np.log(truth.residuals)))) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_simulated_batches_take_as_long_as_recorded_ones(seed: int) -> None:
    """Also where the device was twice as slow when the last of them were, which is what a learner knows best."""
    samples = generate(Contention("additive", lanes=3, count=1_500, seed=seed))
    samples[1_300:] = [msgspec.structs.replace(s, exec_ns=2 * s.exec_ns) for s in samples[1_300:]]
    truth = learned(samples)
    expected_ns = 0.0
    for sample in samples:
        own = own_of(sample)
        seen = exposure(own, co_runners_of(sample))
        expected_ns += sample.solo_ns * truth.slowdown_function(own).slowdown(sums_of(seen, truth.contribution))
    recorded_ns = sum(sample.exec_ns for sample in samples)
    assert expected_ns * float(np.mean(truth.residuals)) == pytest.approx(recorded_ns, rel=0.03)


# Arrivals


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_has_its_rate_and_ascends(process: str) -> None:
    found = arrivals([Traffic("a", 50.0, 10.0), Traffic("b", 5.0, 10.0, 2)], 400.0, 7, process)
    times = [a.at_s for a in found]
    assert times == sorted(times)
    assert times[0] >= 0.0 and times[-1] < 400.0
    assert sum(a.model == "a" for a in found) == pytest.approx(20_000, rel=0.1)
    assert found == arrivals([Traffic("a", 50.0, 10.0), Traffic("b", 5.0, 10.0, 2)], 400.0, 7, process)


def spread(times: list[float]) -> float:
    """Variance over mean of the counts per second: 1 for Poisson."""
    counts = np.histogram(times, bins=np.arange(0, 400))[0]
    return float(counts.var() / counts.mean())


def test_bursts_are_bursts() -> None:
    of = {p: spread([a.at_s for a in arrivals([Traffic("a", 50.0, 10.0)], 400.0, 7, p)]) for p in PROCESSES}
    assert of["uniform"] < 0.05
    assert 0.8 < of["poisson"] < 1.2
    assert of["bursty"] > 5.0


def test_each_model_keeps_the_traces_shape_at_its_rate() -> None:
    trace = [0.0, 1.0, 1.1, 1.2, 3.0, 4.0]
    found = along(trace, [Traffic("a", 1.0, 10.0), Traffic("b", 2.0, 10.0, 2)], 120.0, 1)
    assert [a.at_s for a in found] == sorted(a.at_s for a in found)
    for model, count in (("a", 120), ("b", 240)):
        times = [a.at_s for a in found if a.model == model]
        assert len(times) == count
        assert times[-1] < 120.0
        rounds = np.diff(times).reshape(-1)[: 6 * 19].reshape(19, 6)
        assert np.allclose(rounds, rounds[0])
        assert sorted(rounds[0] / rounds[0].sum()) == pytest.approx(
            np.array([0.1, 0.1, 2 / 3, 1.0, 1.0, 1.8]) / (4 + 2 / 3)
        )
    assert found == along(trace, [Traffic("a", 1.0, 10.0), Traffic("b", 2.0, 10.0, 2)], 120.0, 1)


def test_stretches_of_a_trace_differ_by_model_and_seed() -> None:
    trace = np.cumsum(np.random.default_rng(0).exponential(1.0, 500)).tolist()
    both = [Traffic("a", 2.0, 10.0), Traffic("b", 2.0, 10.0)]
    first, second = along(trace, both, 30.0, 1), along(trace, both, 30.0, 2)
    of = [[a.at_s for a in found if a.model == m] for found in (first, second) for m in ("a", "b")]
    assert len({tuple(times) for times in of}) == 4


def test_a_trace_whose_requests_come_at_once_stays_so() -> None:
    trace = [0.0, *[5.0] * 50]
    assert {a.at_s for a in along(trace, [Traffic("a", 1.0, 10.0)], 3.0, 0)} == {0.0}
    assert along(trace, [Traffic("a", 0.1, 10.0)], 3.0, 0) == ()


def test_a_trace_is_read_from_a_column_or_from_bare_numbers(tmp_path: Path) -> None:
    stamped, bare = tmp_path / "a.csv", tmp_path / "b.txt"
    stamped.write_text(
        "TIMESTAMP,ContextTokens\n2023-11-16 18:17:03.9799600,4808\n2023-11-16 18:17:04.0319600,3\n\n"
        "2023-11-16 18:17:07.9799600,1\n"
    )
    bare.write_text("3\n3.5\n8\n")
    assert read_trace(stamped) == pytest.approx([0.0, 0.052, 4.0], abs=1e-6)
    assert read_trace(bare) == [0.0, 0.5, 5.0]


# The command


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    from tests.server.harness import mlp, write_model  # noqa: PLC0415 - only here

    config = 'backend: "isochrone"\nmax_batch_size: 8\n'
    for name in ("a", "b"):
        write_model(tmp_path / "models", name, mlp(), config)
        write_profile(tmp_path / "models" / name / "1" / "profile.json", profile_file(name, (1, 10, 11), (8, 40, 41)))
    return tmp_path / "models"


def workload(tmp_path: Path, **changes: Any) -> Path:
    asked = [
        {"model": "a", "rate_per_s": 30, "slo_ms": 60},
        {"model": "b", "rate_per_s": 30, "slo_ms": 90, "priority_class": 2},
    ]
    path = tmp_path / "workload.json"
    path.write_text(json.dumps({"models": asked, "seconds": 5, **changes}))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["isochrone", "simulate", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_loads_and_lanes_side_by_side(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    where = f"--model-repository={repository}"
    assert run(monkeypatch, workload(tmp_path), where, "--lanes=1,2", "--load=0.5,2", f"--json={out}") == 0
    points = json.loads(out.read_text())["points"]
    assert [(p["load"], p["lanes"]) for p in points] == [(0.5, 1), (0.5, 2), (2.0, 1), (2.0, 2)]
    shares = [p["all"]["met_share"] for p in points]
    assert shares[0] > 0.9 and shares[2] < shares[3]
    assert points[0]["classes"].keys() == {"1", "2"}
    shown = capsys.readouterr().out
    assert "class 2 met %" in shown
    assert "interference: none" in shown


def test_tensors_take_their_time_on_a_narrow_link(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of 16 floats in 10 ms of execution: at 6.4 kB/s their way alone is 10 ms more."""
    found = []
    for i, options in enumerate(((), ("--bandwidth-in=6.4e-6", "--bandwidth-out=100"))):
        out = tmp_path / f"{i}.json"
        where = f"--model-repository={repository}"
        assert run(monkeypatch, workload(tmp_path), where, "--lanes=4", f"--json={out}", *options) == 0
        (point,) = json.loads(out.read_text())["points"]
        found.append(point["all"]["p50_ms"])
    assert found[0] < 15.0
    assert 19.0 < found[1] < 60.0
    assert "transfers: 6.4e-06 GB/s in, 100 GB/s out" in capsys.readouterr().out.replace("\n", " ")


def test_samples_tell_the_interference(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = tmp_path / "samples.jsonl"
    samples.write_bytes(b"".join(map(encode_sample, generate(Contention("additive", lanes=3, count=300)))))
    where = f"--model-repository={repository}"
    assert run(monkeypatch, workload(tmp_path), where, f"--samples={samples}") == 0
    assert "samples.jsonl" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({"models": []}, (), "it names no model"),
        ({"seconds": 0}, (), "seconds must lie above 0"),
        ({"arrivals": "weekly"}, (), "arrivals must be one of poisson, uniform, bursty, trace, got 'weekly'"),
        ({"arrivals": "trace"}, (), "belong together"),
        ({"arrivals": "trace", "trace": "no.csv"}, (), "no.csv' cannot be read: No such file or directory"),
        ({"models": [{"model": "a", "rate_per_s": 0}]}, (), "rate_per_s must be above 0, got 0"),
        (
            {"models": [{"model": "a", "rate_per_s": 1e-300}]},
            (),
            "rate_per_s must be above 0, got 1e-300; 1e-09 to 2e+07",
        ),
        ({"models": [{"model": "a", "rate_per_s": 1e7}]}, (), "make 5e+07 requests; at most 2e+07 are allowed"),
        ({"models": [{"model": "a", "rate_per_s": 1, "slo_ms": 5}]}, (), "model 'a' 5 ms, but alone it takes 10.0"),
        ({"models": [{"model": "c", "rate_per_s": 1}]}, (), "'c', which the repository has not; it has a, b"),
        ({"models": [{"model": "a", "rate_per_s": 1}] * 2}, (), "model 'a' is named twice"),
        ({"models": [{"model": "a", "rate_per_s": 1, "priority_class": 0}]}, (), "priority_class must be 1 or more"),
        ({"colour": "red"}, (), "unknown field `colour`"),
        ({}, ("--lanes=0",), "--lanes must be whole numbers from 1 to 1024"),
        ({}, ("--load=0",), "--load must be numbers above 0"),
        ({}, ("--load=half",), "got 'half'"),
        ({}, ("--load=0.0001",), "no request arrives in 5 s at load 0.0001"),
        ({}, ("--overhead-ms=-1",), "--overhead-ms must lie in 0..1e6"),
        ({}, ("--bandwidth-in=0",), "--bandwidth-in must lie above 0 and up to 1000, got 0"),
        ({}, ("--bandwidth-out=inf",), "--bandwidth-out must lie above 0 and up to 1000, got inf"),
        ({}, ("--samples=/nowhere",), "/nowhere cannot be read"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_sentence(
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    options: tuple[str, ...],
    sentence: str,
) -> None:
    path = workload(tmp_path, **changes)
    assert run(monkeypatch, path, f"--model-repository={repository}", *options) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.startswith("isochrone: ") and told.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1\n3\n2\n", "line 3: times must ascend"),
        ("-1\n2\n", "line 1: a time of 0 s or later, at most 1e+12 s, is expected"),
        ("1\nsoon\n", "line 2: a time of 0 s or later, at most 1e+12 s, is expected, got ['soon']"),
        ("0\n1e300\n", "line 2: a time of 0 s or later, at most 1e+12 s, is expected, got ['1e300']"),
        ("1\n", "holds 1 times"),
        ("", "holds 0 times"),
        ("1\n1\n", "spans no time"),
    ],
)
def test_a_broken_trace_is_refused_with_its_line(
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    sentence: str,
) -> None:
    (tmp_path / "t.csv").write_text(text)
    path = workload(tmp_path, arrivals="trace", trace="t.csv")
    assert run(monkeypatch, path, f"--model-repository={repository}") == 2
    assert sentence in capsys.readouterr().err


def test_a_model_without_a_profile_is_named(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "b" / "1" / "profile.json").unlink()
    assert run(monkeypatch, workload(tmp_path), f"--model-repository={repository}") == 2
    assert "model 'b' has no profile; run `isochrone profile" in capsys.readouterr().err
