"""Everything that the report shows, computed once from what was recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.study.numbers import (
    Spread,
    Tested,
    Vector,
    feature_errors,
    relative_to_p95,
    scored,
    scores,
    training_errors,
    undisturbed,
)
from benchmarks.study.plan import COMPARED, TEST_SETS, TRAINING, StudyPlan
from benchmarks.study.records import LogRun, StudyRecords, Tasks
from predictor.evaluate import Score
from predictor.samples import read_samples
from profiler.profile_file import ProfileFile


@dataclass(frozen=True)
class OfLanes:
    """Results of the logs with one number of lanes. training: MSE of the linear start, and of ours, on that set.

    batches: undisturbed ones, of which all the rest is; every: scores over the disturbed ones too. interference
    (section 3): measured execution / profiled p95, ascending.
    """

    recorded: dict[str, int]
    batches: dict[str, int]
    runs: dict[str, LogRun]
    interference: Vector
    features: dict[str, Spread]
    training: tuple[float, float]
    tested: dict[str, Tested]
    every: dict[str, dict[str, Score]]


@dataclass(frozen=True)
class Results:
    """lanes: by number of lanes."""

    plan: StudyPlan
    profiles: dict[str, ProfileFile]
    tasks: list[Tasks]
    lanes: dict[int, OfLanes]


def results(records: StudyRecords, on_stage: Callable[[str, float], None]) -> Results:
    """Takes some seconds per thousand batches."""
    plan, profiles, found = records.plan, records.profiles(), {}
    for lanes in plan.lanes:
        on_stage(f"learning from the logs of {lanes} lanes", 30.0)
        whole = {
            log.name: relative_to_p95(read_samples(records.samples(lanes, log)).samples, profiles) for log in plan.logs
        }
        runs = {log.name: run for log in plan.logs if (run := records.run(lanes, log)) is not None}
        logs = {name: undisturbed(samples, runs[name].cpu_steal) for name, samples in whole.items()}
        every = [s for samples in logs.values() for s in samples]
        found[lanes] = OfLanes(
            {name: len(samples) for name, samples in whole.items()},
            {name: len(samples) for name, samples in logs.items()},
            runs,
            np.sort([s.slowdown for s in every]),
            feature_errors(every),
            training_errors(logs[TRAINING]),
            {name: scored(logs[TRAINING], logs[name]) for name in TEST_SETS},
            scores(whole[TRAINING], {name: whole[name] for name in TEST_SETS}, COMPARED),
        )
    return Results(plan, profiles, records.tasks(), found)
