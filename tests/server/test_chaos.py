"""Each kind of fault once, under load, by the command that `make chaos` runs for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.chaos.faults.kinds import FAULTS

pytestmark = pytest.mark.alone
ROOT = Path(__file__).resolve().parents[2]
WINDOW_S, HOLD = 0.2, 0.5
WITHIN_S = 900.0


def test_every_kind_of_fault_costs_no_request_more_than_is_documented(tmp_path: Path) -> None:
    records = tmp_path / "records.json"
    command = [sys.executable, "-m", "tests.chaos", "--json", str(records)]
    command += ["--window-s", str(WINDOW_S), "--hold", str(HOLD)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, f"{done.stdout[-6_000:]}\n{done.stderr[-12_000:]}"
    report: dict[str, Any] = msgspec.json.decode(records.read_bytes())
    left_out = {reason.partition(":")[0] for reason in report["left_out"]}
    assert {record["kind"] for record in report["records"]} | left_out == {fault.kind for fault in FAULTS}
    assert sum(record["sum"]["outcomes"].get("right", 0) for record in report["records"]) > 1_000
