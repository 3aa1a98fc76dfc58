"""The comparison next to a closed loop in its quick form, on real servers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from benchmarks.closed_loop.plan import QUICK
from benchmarks.closed_loop.records import LoopRecord

ROOT = Path(__file__).resolve().parents[3]


def test_it_runs_and_goes_on(tmp_path: Path) -> None:
    folder, out = tmp_path / "records", tmp_path / "docs" / "closed-loop.md"
    command = [sys.executable, "-m", "benchmarks.closed_loop", "--quick", f"--folder={folder}", f"--out={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240.0, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for server in QUICK.servers:
        assert f"| *{server}* |" in out.read_text()
    turns = {path: path.stat().st_mtime_ns for path in (folder / "turns").glob("*.json")}
    assert len(turns) == len(QUICK.servers)
    for path in turns:
        record = msgspec.json.decode(path.read_bytes(), type=LoopRecord)
        assert [len(phase.high_ms) for phase in record.phases] == [10] * len(QUICK.phases)
        assert record.phase(0).low_per_s == 0.0 < record.phase(2).low_per_s
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60.0, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in turns} == turns
