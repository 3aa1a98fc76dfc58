"""The study in its quick form on a real server: interrupted, taken up again, its server killed, and what it wrote.

What it shares with the comparison is seen in that one's quick form, in the default run: servers, load, records, report.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.runtime_dir import VARIABLE
from benchmarks.study.plan import TEST_SETS, TRAINING
from predictor.samples import read_samples

ROOT = Path(__file__).resolve().parents[3]
PLOTS = {"throughput", "tasks", "interference", "features", "learners"}


def begin(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.study", "--quick", f"--folder={tmp_path / 'records'}"]
    environment = {**os.environ, VARIABLE: str(tmp_path / "run")}  # of the profiler; servers have their own
    return subprocess.Popen(
        [*command, f"--out={tmp_path / 'out' / 'study.md'}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], within_s: float) -> str:
    try:
        return process.communicate(timeout=within_s)[0]
    finally:
        process.kill()
        process.wait()


def server_of(study: subprocess.Popen[str], within_s: float) -> int:
    """The tritonserver that it measures, once that answers."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and study.poll() is None:
        for pid in descendants(study.pid):
            if comm(pid) == "tritonserver" and any(
                comm(child).startswith("triton_python") for child in descendants(pid)
            ):
                return pid
        time.sleep(0.1)
    raise AssertionError(f"no server after {within_s:.0f} s: {finish(study, 10.0)}")


def descendants(pid: int) -> list[int]:
    try:
        children = [
            int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
        ]
    except OSError:
        return []
    return [found for child in children for found in (child, *descendants(child))]


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@pytest.mark.slow
def test_it_runs_is_interrupted_loses_a_server_and_goes_on(tmp_path: Path) -> None:
    logs = tmp_path / "records" / "logs"
    process = begin(tmp_path)
    deadline = time.monotonic() + 120.0
    while not list(logs.glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = finish(process, 60.0)
    assert process.returncode == 130, said
    assert "interrupted; what is recorded is kept" in said
    first = {path.name: path.stat().st_mtime_ns for path in logs.iterdir()}
    assert first
    assert not (tmp_path / "out").exists()

    process = begin(tmp_path)
    os.kill(server_of(process, within_s=120.0), signal.SIGKILL)
    said = finish(process, 300.0)
    assert process.returncode == 0, said
    assert "once more, since" in said
    assert first.items() <= {path.name: path.stat().st_mtime_ns for path in logs.iterdir()}.items()
    for lanes in (2, 4):
        for name in (TRAINING, *TEST_SETS):
            assert len(read_samples(logs / f"{name.replace(' ', '-')}-{lanes}-lanes.jsonl").samples) > 5
    report = (tmp_path / "out" / "study.md").read_text()
    linked = re.findall(r"!\[\w+\]\((study/\w+\.png)\)", report)
    assert {Path(link).stem for link in linked} == PLOTS
    for link in linked:
        assert (tmp_path / "out" / link).read_bytes().startswith(b"\x89PNG")
    assert not re.search(r"\bnan\b", report)
    for what in (*TEST_SETS, "noise of twins", "EWMA 1/3", "integral", "failed"):
        assert what in report

    command = [sys.executable, "-m", "benchmarks.study", f"--folder={tmp_path / 'records'}"]
    other = subprocess.run(
        [*command, f"--out={tmp_path / 'study.md'}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60.0, check=False,
    )  # fmt: skip
    assert other.returncode == 2
    assert "holds records of another plan" in other.stderr
