"""`isochrone profile` on a repository, as a user runs it, for benchmarks that start from measured profiles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError


def profile_models(repository: Path, seconds: float, batch_sizes: Sequence[int] = ()) -> None:
    """Write each model's profile.json; what is there and holds stays. Raises BenchmarkError."""
    command = [sys.executable, "-m", "backend.cli", "profile", f"--model-repository={repository}"]
    command.append(f"--seconds={seconds}")
    if batch_sizes:
        command.append(f"--batch-sizes={','.join(map(str, batch_sizes))}")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise BenchmarkError(f"isochrone profile ended with exit code {done.returncode}: {last}")
