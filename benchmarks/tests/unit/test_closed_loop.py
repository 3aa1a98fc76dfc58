"""Figures next to a closed loop: ratios, turns and the report, without a server."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.closed_loop.closed_loop_report import report
from benchmarks.closed_loop.plan import FULL, QUICK
from benchmarks.closed_loop.records import ClosedLoopRecords, LoopRecord, Phase
from benchmarks.harness.records import RunManifest
from profiler.profile_file import FeatureShares, ProfileEntry, ProfileFile

MS = 1_000_000


def record(alone_ms: float, beside_ms: float, low_per_s: float) -> LoopRecord:
    """A hundred requests each, of which one is slow."""
    return LoopRecord(
        [
            Phase(0, [1.0] * 98 + [alone_ms, 99.0], 0, 0.0, 0.1, 0.0),
            Phase(2, [1.0] * 98 + [beside_ms, 99.0], 1 if beside_ms > 20.0 else 0, low_per_s, 0.3, 0.02),
        ]
    )


def profile(model: str) -> ProfileFile:
    interval = (10 * MS, 10 * MS)
    entry = ProfileEntry(1, 10 * MS, interval, 10 * MS, interval, 100.0, FeatureShares(0.5, 0.2, 0.3), 9, 6, 0, True)
    return ProfileFile(1, model, "1", "cpu", "engine", "0" * 64, "graph", (entry,))


def test_a_ratio_is_of_the_p99_next_to_the_loop_and_without() -> None:
    assert record(10.0, 12.0, 3.0).ratio(2) == pytest.approx(1.2)


def test_the_report_has_every_server_and_tells_which_preempt(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(QUICK, repeats=3)
    records = ClosedLoopRecords(plan, tmp_path)
    for turn in records.turns():
        ours = turn.server == "isochrone"
        records.keep(turn.file, record(10.0, (11.0 if ours else 30.0) + turn.repeat, 40.0))
    profiles = {model: profile(model) for model in plan.models}
    text = report(plan, RunManifest(None, "cpu", 2), profiles, records.recorded())
    assert "| *isochrone* | yes | 10.0 | 1.20 (1.10 to 1.30) | 12.0 | 40 |" in text
    assert "| *stock, rate limiter* | no | 10.0 | 3.10 (3.00 to 3.20), 3 unanswered | 31.0 | 40 |" in text
    assert "Requests left at most 0.3 ms late (p99), the machine's host took at most 2 % of the CPU" in text


def test_what_refuses_requests_takes_no_part() -> None:
    """The slowest would be missing from its p99."""
    assert not {"stock, queue timeouts", "isochrone, class 2 refused"} & set(FULL.servers)
    assert [s for s in FULL.servers if FULL.preempts(s)] == ["isochrone, no prediction", "isochrone, RLS", "isochrone"]
