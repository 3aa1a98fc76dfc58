"""Measures many jobs in alternation: a round of every batch size that is not done, then the next, until all are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from backend.errors import IsochroneError
from backend.model_process.load_profile import counted_features, identity_of, on_first_lane, timed_run
from backend.profiling.counters import Counters
from backend.profiling.job import Job
from profiler.feature_source import FeatureSource
from profiler.lock import exclusive
from profiler.nsight import NsightError, NsightFeatures
from profiler.profile_file import ProfileFile
from profiler.rounds import Rounds

_LOCK_WAIT_S = 60.0
_PAUSE_S = 0.1
"""Pause between two passes, so that a model that loads meanwhile gets the lock, which it tries every 20 ms."""
_OPEN_BYTES_MAX = 4 << 30
"""Size of the model files open at a time; models beyond are measured after those before."""


@dataclass
class Task:
    """One batch size of one job under way."""

    job: Job
    batch_size: int
    rounds: Rounds


@dataclass(frozen=True)
class Hooks:
    """Callbacks of progress. entry: one is done. advance: to this share of all work. say: a sentence for people."""

    entry: Callable[[Job, int], None]
    advance: Callable[[float], None]
    say: Callable[[str], None]


def run_campaign(
    jobs: Sequence[Job],
    hooks: Hooks,
    *,
    directory: Path,
    budget_ns: int,
    again: bool = False,
) -> None:
    """Fill each job's file; a job that fails keeps its error and does not stop the others.

    An interrupt passes through; what has rounds enough is kept before.
    """
    counters = Counters(directory, hooks.say)
    for job in jobs:  # children run here, before anything is timed
        _begin(job, counters, directory, again, hooks)
    total = sum(len(job.missing) for job in jobs if job.error is None)
    done = 0
    for group in groups([job for job in jobs if job.missing and job.error is None], _OPEN_BYTES_MAX):
        size = sum(len(job.missing) for job in group)
        with ExitStack() as engines:
            tasks = [task for job in group for task in _open(job, engines, budget_ns)]
            for now in _alternate(tasks, hooks, directory):
                hooks.advance((done + now * size) / total)
        done += size


def groups(jobs: Sequence[Job], bytes_max: int) -> Iterator[list[Job]]:
    """In order, as many at a time as hold no more than `bytes_max`, at least one."""
    group: list[Job] = []
    held = 0
    for job in jobs:
        size = job.config.model_file.stat().st_size
        if group and held + size > bytes_max:
            yield group
            group, held = [], 0
        group.append(job)
        held += size
    if group:
        yield group


def _begin(job: Job, counters: Counters, directory: Path, again: bool, hooks: Hooks) -> None:
    try:
        engine = job.open(job.config)
        identity = identity_of(job.config, engine)
        engine.close()
        found = job.recall(identity, again=again)
        source = _source(job, found, counters, directory)
        job.begin(found, source)
    except (IsochroneError, OSError) as error:
        job.error = str(error)
        return
    for sentence in (job.redone and f"{job.redone}, so it is measured anew", source.note):
        if sentence:
            hooks.say(f"{job.name}: {sentence}")


def _source(job: Job, found: ProfileFile, counters: Counters, directory: Path) -> FeatureSource:
    """The source of features for all sizes that the file will have: a GPU's own counters if they can be had."""
    sizes = sorted({*job.batch_sizes, *found.batch_sizes})
    if job.config.device_id is None:
        return counted_features(job.config, directory, sizes)
    known = found.batch_sizes if found.features_from == NsightFeatures.name else ()
    try:
        return counters.features(job.path.parent, [size for size in sizes if size not in known])
    except NsightError as error:
        return counted_features(job.config, directory, sizes, str(error))


def _open(job: Job, engines: ExitStack, budget_ns: int) -> list[Task]:
    try:
        engine = job.open(job.config)
    except IsochroneError as error:
        job.error = str(error)
        return []
    engines.callback(engine.close)
    return [
        Task(job, size, Rounds(partial(timed_run, job.config, engine, job.inputs, size), budget_ns))
        for size in job.missing
    ]


def _alternate(tasks: list[Task], hooks: Hooks, directory: Path) -> Iterator[float]:
    """Yields the share of the work that is done after each round."""
    pending = tasks
    warned = False
    try:
        while pending:
            with exclusive(directory / "profiling.lock", _LOCK_WAIT_S) as undisturbed:
                if not undisturbed and not warned:
                    hooks.say("another profiling is under way on this machine, so times may be longer than alone")
                    warned = True
                for task in pending:
                    _round(task, hooks)
                    yield sum(_progress(each) for each in tasks) / len(tasks)
            pending = [task for task in pending if task.job.error is None and not task.rounds.done]
            time.sleep(_PAUSE_S)
    except (KeyboardInterrupt, GeneratorExit):
        for task in pending:
            if task.job.error is None and task.rounds.usable and task.batch_size in task.job.missing:
                task.job.keep(task.batch_size, task.rounds.result())
        raise


def _round(task: Task, hooks: Hooks) -> None:
    if task.job.error is not None:
        return
    try:
        with on_first_lane(task.job.config):
            task.rounds.one()
        if task.rounds.done:
            task.job.keep(task.batch_size, task.rounds.result())
            hooks.entry(task.job, task.batch_size)
    except IsochroneError as error:
        task.job.error = str(error)


def _progress(task: Task) -> float:
    return 1.0 if task.job.error is not None else task.rounds.progress
