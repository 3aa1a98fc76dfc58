"""The time that a run may take. What is recorded by its end is kept, and the next run goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from backend.errors import IsochroneError


class TimeIsOver(IsochroneError):  # noqa: N818 - no error: the run goes on another time
    """The next step does not fit in any more."""


@dataclass(frozen=True)
class Step:
    """Something that leaves a record when it is done. seconds: about how long it takes."""

    name: str
    seconds: float
    run: Callable[[], None]


class Budget:
    """seconds: from now on."""

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
