"""The whole check with six small models, by parts and interrupted: on the CPU, and on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from backend.errors import ConfigError
from backend.load.arrivals import Arrival
from backend.load.outcomes import Outcome
from backend.runtime_dir import VARIABLE
from benchmarks.gpu_check import through_server
from benchmarks.gpu_check.__main__ import PARTS, run
from benchmarks.gpu_check.in_process import InProcess
from benchmarks.gpu_check.plan import QUICK
from benchmarks.gpu_check.records import AWARE, IN_ORDER, IN_PROCESS, CheckRecords
from benchmarks.gpu_check.target import Target, the_cpu, the_gpu
from benchmarks.harness.steps import TimeBudget, TimeIsOver
from benchmarks.tests.slow_model import write_slow
from predictor.samples import read_samples
from profiler.profile_file import NAME, FeatureShares, ProfileEntry, ProfileFile, write_profile

MS = 1_000_000
PLAN = msgspec.structs.replace(QUICK, requests=60, study_requests=30)
UNPROFILED = PLAN.models[-1]


@pytest.fixture(params=["cpu", "gpu"])
def target(request: pytest.FixtureRequest) -> Target:
    if request.param == "cpu":
        return the_cpu()
    try:
        return the_gpu()
    except ConfigError as error:
        pytest.skip(f"nothing can be checked on a GPU here: {error}")


@pytest.fixture
def records(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckRecords:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "run"))
    monkeypatch.setattr(through_server, "missing", lambda: "the test is not to start one")
    for i, model in enumerate(PLAN.models):
        version = tmp_path / "source" / model / "1"
        version.mkdir(parents=True)
        write_slow(version / "model.onnx", 10 + 5 * i)
    return CheckRecords(PLAN, target, tmp_path / "records", tmp_path / "source")


def remember_profile(records: CheckRecords, model: str, p50_ms: float) -> None:
    def entry(size: int, at_ms: float) -> ProfileEntry:
        ns, shares = round(at_ms * MS), FeatureShares(0.5, 0.2, 0.3)
        return ProfileEntry(size, ns, (ns, ns), ns, (ns, ns), size / at_ms * 1e3, shares, 9, 6, 0, True)

    entries = (entry(1, p50_ms), entry(8, 4 * p50_ms))
    file = ProfileFile(1, model, "1", records.target.name, "engine", "0" * 64, "graph", entries)
    write_profile(records.models / model / "1" / NAME, file)


def written(records: CheckRecords) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in records.folder.rglob("*.json")}


def test_part_by_part_and_interrupted(records: CheckRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out" / "gpu.md"
    records.begin()
    with pytest.raises(TimeIsOver, match=r"^'building resnet50' takes about"):
        run(records, PARTS, TimeBudget(1.0), out)
    assert records.built() == {}

    run(records, ["build", "check"], TimeBudget(600.0), out)
    assert set(records.usable()) == set(PLAN.models)
    assert {a.batch_size for found in records.agreements().values() for a in found} == {1, 4}

    for model in PLAN.models:
        if model != UNPROFILED:
            remember_profile(records, model, 2.0)
    before = written(records)
    run(records, ["profile"], TimeBudget(600.0), out)
    assert [e.batch_size for e in records.profiles()[UNPROFILED].entries] == [1, 8]
    assert before.items() <= written(records).items()

    loads = 0
    real = InProcess.run

    def interrupted(device: InProcess, plan: Sequence[Arrival], *rest: object) -> list[Outcome]:
        nonlocal loads
        loads += 1
        if loads == 6:  # the second log's last: each has a warm-up and two loads
            raise KeyboardInterrupt
        return real(device, plan, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(InProcess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(records, ["colocate"], TimeBudget(600.0), out)
    assert len(records.study_runs()) == 1
    before = written(records)
    run(records, PARTS, TimeBudget(600.0), out)
    assert before.items() <= written(records).items()

    assert records.study_is_complete()
    for lanes in PLAN.lanes:
        for order in (IN_ORDER, AWARE):
            turn = records.turn(IN_PROCESS, lanes, order)
            assert turn is not None
            assert sum(o.status == "failed" for m in turn.measured for o in m.outcomes) == 0
            samples = read_samples(records.turn_samples(IN_PROCESS, lanes, order)).samples
            assert {s.device for s in samples} == {records.target.device}
            assert {s.lane for s in samples} <= set(range(lanes))

    report = out.read_text()
    for what in ("Engines", "Outputs", "Alone", "stock's order and ours", "Predicted and measured", "noise of twins"):
        assert what in report
    assert "Skipped: the test is not to start one." in report
    assert records.target.name in report
    assert "Not done yet" not in report
    assert "nan" not in report
    rows = [line.split(" | ") for line in report.splitlines() if line.startswith(("| 1 |", "| 2 |", "| 4 |"))]
    assert {row[0].strip("| ") for row in rows if len(row) == 9} == {"1", "2", "4"}


def test_a_report_says_what_is_not_done(records: CheckRecords, tmp_path: Path) -> None:
    run(records, ["report"], TimeBudget(600.0), tmp_path / "gpu.md")
    report = (tmp_path / "gpu.md").read_text()
    for part in ("build", "check", "profile", "colocate"):
        assert f"Not done yet: `python -m benchmarks.gpu_check --part {part}`." in report
