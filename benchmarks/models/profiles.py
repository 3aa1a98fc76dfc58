"""`isochrone profile` on a repository, as a user runs it, for benchmarks that start from measured profiles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.steps import Step
from profiler.profile_file import NAME, ProfileFile, read_profile

_ENTRY_S = 1.5


def read_profiles(repository: Path, models: Iterable[str]) -> dict[str, ProfileFile]:
    """Profiles by model, of those that have one."""
    found = {model: read_profile(repository / model / "1" / NAME) for model in models}
    return {model: file for model, file in found.items() if file is not None}


def unprofiled(repository: Path, models: Sequence[str], batch_sizes: Iterable[int]) -> int:
    """Counts the batch sizes that no profile has yet, over all models."""
    found, wanted = read_profiles(repository, models), set(batch_sizes)
    known = (wanted & {e.batch_size for e in found[model].entries} if model in found else set() for model in models)
    return sum(len(wanted) - len(sizes) for sizes in known)


def p95_ms(file: ProfileFile) -> float:
    """Latency of a batch of one, solo."""
    return next(e.p95_ns for e in file.entries if e.batch_size == 1) / 1e6


def profile_models(repository: Path, seconds: float, batch_sizes: Sequence[int] = ()) -> None:
    """Writes each model's profile.json; what is there and holds stays. Raises BenchmarkError."""
    command = [sys.executable, "-m", "backend.commands.main", "profile", f"--model-repository={repository}"]
    command.append(f"--seconds={seconds}")
    if batch_sizes:
        command.append(f"--batch-sizes={','.join(map(str, batch_sizes))}")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise BenchmarkError(f"isochrone profile ended with exit code {done.returncode}: {last}")


def profiling_steps(
    repositories: Iterable[Path], models: Sequence[str], batch_sizes: Sequence[int], seconds: float
) -> Iterator[Step]:
    """One step per repository that lacks a batch size of some model. seconds: per batch size at most."""
    for repository in repositories:
        if missing := unprofiled(repository, models, batch_sizes):
            run = partial(profile_models, repository, seconds, batch_sizes)
            yield Step(f"profiling {missing} batches solo", missing * max(_ENTRY_S, seconds), run)
