"""Finds the scheduler that a device's process runs: ours, as the environment sets it, or one that it names, for
comparisons."""

from __future__ import annotations

import importlib
import os
from functools import partial
from typing import Protocol

from backend.errors import ConfigError
from backend.scheduler.class_prices import CLASS_COST
from backend.scheduler.core import Observer, Scheduler
from predictor.bound import UpperBound
from predictor.learners.learner import Forecaster
from predictor.transfers import TransferModel

VARIABLE = "ISOCHRONE_SCHEDULER"
"""`module:function`, importable by the scheduler's process; the function is a `SchedulerFactory`."""
CLASS_COST_VARIABLE = "ISOCHRONE_CLASS_COST_PERCENT"
"""Share of a higher class's deadlines that lower classes may cost it, of ours."""


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


def class_cost() -> float:
    """0.0 to 1.0, from the environment's percentage; 2 % by default. Raises ConfigError."""
    text = os.environ.get(CLASS_COST_VARIABLE)
    if text is None or not text.strip():
        return CLASS_COST
    try:
        percent = float(text)
    except ValueError:
        percent = -1.0
    if "_" in text or not 0.0 <= percent <= 100.0:  # NaN is not
        raise ConfigError(f'{CLASS_COST_VARIABLE} is "{text}"; it must be a number from 0 to 100')
    return percent / 100.0
