"""`isochrone profile` on a repository, as a user runs it, for benchmarks that start from measured profiles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.harness.errors import BenchmarkError
from profiler.profile_file import NAME, ProfileFile, read_profile


def read_profiles(repository: Path, models: Iterable[str]) -> dict[str, ProfileFile]:
    """Of those that have one."""
    found = {model: read_profile(repository / model / "1" / NAME) for model in models}
    return {model: file for model, file in found.items() if file is not None}


def unprofiled(repository: Path, models: Sequence[str], batch_sizes: Iterable[int]) -> int:
    """Batch sizes that no profile has yet, over all models."""
    found, wanted = read_profiles(repository, models), set(batch_sizes)
    known = (wanted & {e.batch_size for e in found[model].entries} if model in found else set() for model in models)
    return sum(len(wanted) - len(sizes) for sizes in known)


def p95_ms(file: ProfileFile) -> float:
    """Of a batch of one, alone."""
    return next(e.p95_ns for e in file.entries if e.batch_size == 1) / 1e6


def profile_models(repository: Path, seconds: float, batch_sizes: Sequence[int] = ()) -> None:
    """Write each model's profile.json; what is there and holds stays. Raises BenchmarkError."""
    command = [sys.executable, "-m", "backend.commands.main", "profile", f"--model-repository={repository}"]
    command.append(f"--seconds={seconds}")
    if batch_sizes:
        command.append(f"--batch-sizes={','.join(map(str, batch_sizes))}")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise BenchmarkError(f"isochrone profile ended with exit code {done.returncode}: {last}")
