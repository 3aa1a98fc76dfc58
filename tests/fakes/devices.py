"""Devices for the tests of what the scheduler decides, each held to its invariants when its test ends.

Unless a test says otherwise the predictor knows its prior only: co-runners add 0.3 × compute + 0.1 × l2 + 0.3 × dram
to a batch's slowdown, and the upper bound is the prediction itself.
"""

from __future__ import annotations

from backend.scheduler.messages import Launch
from predictor.learners.learner import Forecaster
from tests.fakes.builders import Device, join, only_launch, profile

HEAVY = profile(10.0, 1.0, 0.0, 1.0)
"""Slows its co-runners by 0.6."""
LIGHT = profile(10.0)

_made: list[Device] = []


def device(lanes: int = 1, cores: int | None = None, predictor: Forecaster | None = None) -> Device:
    """For modules that use the fixture `audited`."""
    made = Device(lanes, cores, predictor)
    _made.append(made)
    return made


def audit() -> None:
    """The invariants of every device hold; they are forgotten."""
    while _made:
        _made.pop().core.check_invariants()


def busy(lanes: int = 1, models: int = 2, **options: bool) -> tuple[Device, Launch]:
    """A device with models 1.. of 10 ms, whose model 9 occupies a lane until the test ends that batch."""
    made = device(lanes)
    for source in range(1, models + 1):
        made.join(source, join(LIGHT, model=f"m{source}", **options))
    made.join(9, join(profile(100.0), model="blocker"))
    return made, only_launch(made.ask(9))


def served_after(made: Device, launch: Launch) -> list[Launch]:
    """Launches on a device of one lane as one batch after the other ends."""
    served = [launch]
    while following := made.finish(served[-1]):
        served.append(only_launch(following))
    return served[1:]
