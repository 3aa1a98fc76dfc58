"""Plan of the check on the device: the whole of it, and a quick form for tests. Data only."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from benchmarks.models.model_repository import MAX_BATCH_SIZE
from benchmarks.study.plan import OTHERS, TRAINED, StudyPlan
from benchmarks.study.plan import logs as study_logs

SLO_MIN_MS = 10.0
"""Shorter ones would be kept or missed by what Python needs for a request, not by the device."""


class CheckPlan(msgspec.Struct, frozen=True):
    """scale: of the zoo's models. built_sizes: an optimisation profile each. checked_sizes: whose outputs are compared.
    batch_sizes: profiled. lanes, loads: of the comparison, every one with every other; a load of 1 is what one lane
    could answer alone with the best batch size. seconds: of each of its loads, with at most `requests` requests.
    study_*: of the logs that the study's tables are made of. server_lanes: where a tritonserver is there.
    """

    models: tuple[str, ...] = TRAINED + OTHERS
    scale: str = "full"
    built_sizes: tuple[int, ...] = (1, MAX_BATCH_SIZE)
    checked_sizes: tuple[int, ...] = (1, 4)
    batch_sizes: tuple[int, ...] = (1, 2, 4, MAX_BATCH_SIZE)
    profile_seconds: float = 1.0
    lanes: tuple[int, ...] = (1, 2, 4)
    loads: tuple[float, ...] = (0.5, 0.8, 1.1)
    seconds: float = 4.0
    requests: int = 4_000
    study_lanes: tuple[int, ...] = (2, 4)
    study_loads: tuple[float, ...] = (0.8, 1.4)
    study_requests: int = 500
    server_lanes: int = 2
    warm_up_seconds: float = 1.0
    seed: int = 1

    def study_of(self, models: Collection[str]) -> StudyPlan:
        """Plan for the study's records and tables, of these models; its third figure is not taken."""
        logs = tuple(
            msgspec.structs.replace(log, weights=weights)
            for log in study_logs(self.study_loads, self.seconds)
            if (weights := {m: weight for m, weight in log.weights.items() if m in models})
        )
        return StudyPlan(self.study_lanes, logs, self.batch_sizes, self.profile_seconds, (), 0.0, 0.0, 1)


FULL = CheckPlan()
QUICK = CheckPlan(
    scale="small",
    batch_sizes=(1, MAX_BATCH_SIZE),
    profile_seconds=0.2,
    loads=(0.7,),
    seconds=1.0,
    requests=200,
    study_requests=60,
    warm_up_seconds=0.2,
)
