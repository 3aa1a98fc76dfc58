"""NVIDIA's own closed-loop client, from the tritonclient wheel: cheap, so that the server is what is timed."""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.errors import BenchmarkError

_LIBRARIES = {"libb64.so.0d": "libb64-*.so*", "libcudart.so.12": "libcudart-*.so*"}
"""Libraries that the binary wants, and the names under which the server's wheel carries them."""
_UNSETTLED = ("Failed to obtain stable measurement", "No valid requests recorded", "Pass contained only one request")
"""Sentences that it says where a window had too little in it, as when the machine stood still."""
_ATTEMPTS = 4
_PATIENCE_S = 300.0
_SAID_CHARS_MAX = 400


@dataclass(frozen=True)
class ClosedLoopFigures:
    """One run. throughput_s: requests per second; p50_us, p99_us: client-side latency."""

    throughput_s: float
    p50_us: float
    p99_us: float


def measure(grpc_url: str, model: str, concurrency: int, seconds: float) -> ClosedLoopFigures:
    """Random data at a fixed concurrency, over three windows of `seconds` / 3; again where that does not settle.

    By windows, not `--request-count`: with that the client rounds the time, and so the throughput, to whole seconds.
    Raises BenchmarkError.
    """
    whose, said = f"perf_analyzer on model '{model}' at concurrency {concurrency}", ""
    for _ in range(_ATTEMPTS):
        found = _attempt(grpc_url, model, concurrency, seconds)
        if isinstance(found, ClosedLoopFigures):
            return found
        said = found[-_SAID_CHARS_MAX:]
        if not any(sentence in found for sentence in _UNSETTLED):
            raise BenchmarkError(f"{whose} failed: {said}")
    raise BenchmarkError(f"{whose} did not settle in {_ATTEMPTS} attempts of {seconds:g} s: {said}")


def _attempt(grpc_url: str, model: str, concurrency: int, seconds: float) -> ClosedLoopFigures | str:
    """Measures once; returns what it said where it failed, on one line."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.csv")
        arguments = [
            *(_binary(), "-m", model, "-u", grpc_url, "-i", "grpc", "--async"),
            *("--concurrency-range", f"{concurrency}:{concurrency}"),
            *("--measurement-interval", str(round(seconds * 1000 / 3)), "--max-trials", "3"),
            *("--stability-percentage", "999"),
            *("--percentile", "50", "-f", str(report)),
        ]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(_libraries(Path(folder, "lib")))}
        try:
            run = subprocess.run(
                arguments, env=environment, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no end after {_PATIENCE_S:g} s"
        if run.returncode != 0 or not report.exists():
            return " ".join((run.stderr or run.stdout).split())
        with report.open() as lines:
            row = next(iter(csv.DictReader(lines)))
    return ClosedLoopFigures(float(row["Inferences/Second"]), float(row["p50 latency"]), float(row["p99 latency"]))


def _binary() -> str:
    beside = str(Path(sys.executable).with_name("perf_analyzer"))
    found = shutil.which(beside) or shutil.which("perf_analyzer")
    if found is None:
        raise BenchmarkError("perf_analyzer is missing; pip install 'tritonclient[grpc]==2.51.0' brings it")
    return found


def _libraries(folder: Path) -> Path:
    """A folder in which the binary finds its libraries under the names it was linked to."""
    folder.mkdir()
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        return folder  # an installed server's libraries are where the loader looks anyway
    carried = Path(spec.origin).parents[1] / "nvidia_pytriton.libs"
    for name, pattern in _LIBRARIES.items():
        for file in carried.glob(pattern):
            (folder / name).symlink_to(file)
    return folder
