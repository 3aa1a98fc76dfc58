"""A soak of seconds on a real server: every kind of request, and nothing left or counted wrongly."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak.mixed_load import PARTS

pytestmark = pytest.mark.slow
"""The default run has `tests/server/test_soak.py`, a sample of it."""

ROOT = Path(__file__).resolve().parents[3]
LASTING = {"tritonserver", "scheduler", "engine process", "model batched_0", "model large_0", "model texts_0"}


def test_a_short_soak_breaks_no_bound(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--short", f"--folder={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600.0, check=False)
    said = json.loads((tmp_path / "soak.json").read_text())
    assert said["wrong"] == []
    assert done.returncode == 0, done.stderr
    assert said["passed"]
    assert {process["role"] for process in said["processes"]} >= LASTING
    counted = {found["model"]: found["clients"] for found in said["requests"]}
    assert len(counted) == 12
    assert sum(sum(clients.values()) for clients in counted.values()) > 300
    assert counted["strict"]["rejected"] and counted["short_queue"]["rejected"]


def test_each_part_runs_by_itself() -> None:
    command = [sys.executable, "-m", "benchmarks.soak.parts", "--turns", "2", "--seconds", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300.0, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in PARTS:
        assert len(re.findall(rf"^{part}: [1-9]\d* done", done.stdout, re.MULTILINE)) == 2
        assert re.search(rf"^\| {part} \| [+-]\d+\.\d\d \| [+-]\d+\.\d\d \|$", done.stdout, re.MULTILINE)
