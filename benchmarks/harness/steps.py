"""The steps of a benchmark: each leaves a record when it is done, so that the next run goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from backend.errors import IsochroneError, ServerError
from backend.progress_bar import StageBar

_SERVERS_MAX = 4


class TimeIsOver(IsochroneError):  # noqa: N818 - no error: the run goes on another time
    """The next step does not fit in any more."""


@dataclass(frozen=True)
class Step:
    """Work that leaves a record when it is done. seconds: about how long it takes.

    own_stages: it tells the progress bar itself how far it is.
    """

    name: str
    seconds: float
    run: Callable[[], None]
    own_stages: bool = False


class TimeBudget:
    """The time that a run may take. seconds: from now on."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds, self._end_s = seconds, clock() + seconds

    @property
    def left_s(self) -> float:
        return self._end_s - self._clock()

    def check(self, step: Step) -> None:
        """Raises TimeIsOver where there is no time for this step."""
        if step.seconds > self._seconds:
            raise TimeIsOver(f"'{step.name}' takes about {step.seconds:.0f} s, more than --minutes allows in all")
        if step.seconds > self.left_s:
            raise TimeIsOver(
                f"the time is over before '{step.name}', which takes about {step.seconds:.0f} s; "
                "what is recorded is kept, run the same command again to go on"
            )


def perform(steps: Iterable[Step], bar: StageBar, budget: TimeBudget | None = None) -> None:
    """Runs the steps in turn. Raises TimeIsOver, or the IsochroneError that ends one.

    A step that loses its server is run again: a machine that stood still for a second may have cost it.
    """
    for step in steps:
        if budget is not None:
            budget.check(step)
        if not step.own_stages:
            bar.begin(step.name, step.seconds)
        for left in reversed(range(_SERVERS_MAX)):
            try:
                step.run()
                break
            except ServerError as error:
                if not left:
                    raise
                bar.begin(f"once more, since {error}", 0.0)
