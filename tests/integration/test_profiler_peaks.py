"""Peaks of a device that two processes ask for at once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from profiler.child import CODE_ROOT

TWO_AT_ONCE = """
import os, sys, time
from pathlib import Path
from profiler.peaks import Peaks, load_or_measure

directory, name = Path(sys.argv[1]), sys.argv[2]

def measure():
    (directory / f"measured-{name}").touch()
    while not (directory / "go").exists():
        time.sleep(0.005)
    return Peaks(1.0, 1.0, 1.0, 1)

(directory / f"started-{name}").touch()
assert load_or_measure(directory, measure).operations_per_s == 1.0
"""


def test_two_processes_measure_once(tmp_path: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", TWO_AT_ONCE, str(tmp_path), name], cwd=CODE_ROOT) for name in "ab"
    ]
    give_up_s = time.monotonic() + 20
    while len(list(tmp_path.glob("started-*"))) < 2 or not list(tmp_path.glob("measured-*")):
        assert time.monotonic() < give_up_s
        time.sleep(0.005)
    (tmp_path / "go").touch()
    assert [child.wait(20) for child in children] == [0, 0]
    assert len(list(tmp_path.glob("measured-*"))) == 1
