"""Finds the scheduler that a device's process runs: ours, or one that the environment names, for comparisons."""

from __future__ import annotations

import importlib
import os
from functools import partial
from typing import Protocol

from backend.errors import ConfigError
from backend.scheduler.core import Observer, Scheduler
from backend.scheduler_process.class_cost import class_cost
from predictor.bound import UpperBound
from predictor.learners.learner import Forecaster
from predictor.transfers import TransferModel

VARIABLE = "ISOCHRONE_SCHEDULER"
"""`module:function`, importable by the scheduler's process; the function is a `SchedulerFactory`."""


class SchedulerFactory(Protocol):
    """Makes a scheduler; see `Scheduler` for the arguments."""

    def __call__(
        self,
        lanes: int,
        observer: Observer | None,
        predictor: Forecaster,
        bound: UpperBound,
        *,
        transfers: TransferModel,
        cores: int | None,
    ) -> Scheduler: ...


def scheduler_factory() -> SchedulerFactory:
    """Find the factory. Raises ConfigError where what is named cannot be had."""
    named = os.environ.get(VARIABLE)
    if not named:
        return partial(Scheduler, class_cost=class_cost())
    module, _, function = named.partition(":")
    try:
        found: SchedulerFactory = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{VARIABLE} must be module:function, got '{named}': {error}") from None
    return found
