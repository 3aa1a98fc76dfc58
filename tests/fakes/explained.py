"""A recorded device with a light and a heavy model, and what is explained of its requests."""

from __future__ import annotations

from pathlib import Path

from backend.commands.explanation_words import words
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Launch
from backend.scheduler_process.explainer import explain
from backend.scheduler_process.explanation import Explanation
from backend.scheduler_process.request_index import RequestIndex
from predictor.learners.linear import Rls
from tests.fakes.builders import join
from tests.fakes.devices import HEAVY, LIGHT
from tests.fakes.recorded import Recorded

LIGHT_MODEL, HEAVY_MODEL = 1, 2


def device(path: Path, lanes: int = 2, **joined: int) -> Recorded:
    """With a light and a heavy model, each taking 10 ms alone."""
    core = Scheduler(lanes, predictor=Rls())
    core.latency.bound.multiplier = 1.0
    made = Recorded(path, core=core)
    made.handle(LIGHT_MODEL, join(LIGHT, model="light", **joined))  # type: ignore[arg-type]
    made.handle(HEAVY_MODEL, join(HEAVY, model="heavy", **joined))  # type: ignore[arg-type]
    return made


def explained(path: Path, number: str) -> tuple[Explanation, str]:
    """With the words."""
    index = RequestIndex(path)
    found = explain(path, next(r for r in index.requests if r.number == number))
    return found, "\n".join(words(found))


def key_of(launch: Launch) -> tuple[int, int]:
    return launch.source, launch.batch
