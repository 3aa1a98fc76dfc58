"""The GPU's check through a real tritonserver, on the CPU: the same loads in both orders, with samples."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console

from backend.progress_bar import StageBar
from benchmarks.gpu_check import build, through_server
from benchmarks.gpu_check.plan import QUICK
from benchmarks.gpu_check.records import AWARE, IN_ORDER, SERVER, CheckRecords
from benchmarks.gpu_check.target import the_cpu
from benchmarks.harness.steps import TimeBudget
from benchmarks.tests.slow_model import write_slow
from predictor.samples import read_samples
from profiler.profile_file import NAME, FeatureShares, ProfileEntry, ProfileFile, write_profile

MS = 1_000_000
MODELS = ("resnet50", "vgg19")


def test_both_orders_and_only_what_is_missing(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(QUICK, models=MODELS, requests=40)
    records = CheckRecords(plan, the_cpu(), tmp_path / "records", tmp_path / "source")
    for model in MODELS:
        version = tmp_path / "source" / model / "1"
        version.mkdir(parents=True)
        write_slow(version / "model.onnx", 20)
    for step in build.steps(records, TimeBudget(60.0)):
        step.run()
    shares = FeatureShares(0.5, 0.2, 0.3)
    entries = tuple(
        ProfileEntry(
            size, ms * MS, (ms * MS, ms * MS), ms * MS, (ms * MS, ms * MS), size / ms * 1e3, shares, 9, 6, 0, True
        )
        for size, ms in ((1, 10), (8, 40))
    )
    for model in MODELS:
        file = ProfileFile(1, model, "1", "cpu", "engine", "0" * 64, "graph", entries)
        write_profile(records.models / model / "1" / NAME, file)

    assert through_server.missing() is None
    bar = StageBar(Console(), 0.0)
    first, second = through_server.steps(records, bar)
    first.run()
    assert [step.name for step in through_server.steps(records, bar)] == [second.name]
    second.run()
    for order in (IN_ORDER, AWARE):
        turn = records.turn(SERVER, plan.server_lanes, order)
        assert turn is not None
        assert [m.load for m in turn.measured] == list(plan.loads)
        [measured] = turn.measured
        assert {o.model for o in measured.outcomes} == set(MODELS)
        assert {o.status for o in measured.outcomes} <= {"ok", "rejected"}
        samples = read_samples(records.turn_samples(SERVER, plan.server_lanes, order)).samples
        assert {s.model for s in samples} == set(MODELS)
