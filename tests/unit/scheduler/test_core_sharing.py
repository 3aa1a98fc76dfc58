"""More lanes than cores: batches share a core, and the scheduler knows with which."""

from __future__ import annotations

import pytest

from backend.scheduler.messages import Launch
from predictor.learners.isochrone import Isochrone
from tests.fakes.builders import Device, join, only_launch
from tests.fakes.devices import LIGHT, device

pytestmark = pytest.mark.usefixtures("audited")


def running(made: Device, count: int) -> list[Launch]:
    """So many batches, a model each, launched one after the other."""
    for source in range(1, count + 1):
        made.join(source, join(LIGHT, model=f"m{source}"))
    return [only_launch(made.ask(source)) for source in range(1, count + 1)]


def test_a_batch_is_launched_on_the_core_with_the_fewest() -> None:
    """Lanes 0 and 2 are on one core, 1 and 3 on the other."""
    made = device(lanes=4, cores=2)
    launches = running(made, 4)
    assert [launch.lane for launch in launches] == [0, 1, 2, 3]
    for launch in (launches[0], launches[1], launches[3]):
        made.finish(launch)
    assert only_launch(made.ask(1)).lane == 1
    assert only_launch(made.ask(2)).lane == 0


@pytest.mark.parametrize(("cores", "same"), [(2, [False, True, False]), (4, [False] * 3), (None, [False] * 3)])
def test_co_runners_on_the_same_core_are_marked(cores: int | None, same: list[bool]) -> None:
    made = device(lanes=4, cores=cores)
    first, *_ = running(made, 4)
    made.at(5.0).finish(first, 5.0)
    assert [co_runner.same_core for co_runner in made.co_runners[0]] == same


def test_core_sharing_is_forecast_before_it_was_measured() -> None:
    """Each lane with a core, two on each, four on one."""
    takes_ns = []
    for cores in (4, 2, 1):
        *_, last = running(device(lanes=4, cores=cores, predictor=Isochrone()), 4)
        takes_ns.append(last.times.predicted_ns)
    assert takes_ns[1] == pytest.approx(2 * takes_ns[0], rel=1e-6)
    assert takes_ns[2] == pytest.approx(4 * takes_ns[0], rel=1e-6)


def test_a_batch_is_held_where_sharing_its_core_makes_another_miss() -> None:
    made = device(lanes=2, cores=1, predictor=Isochrone())
    made.join(1, join(LIGHT, model="tight"))
    made.join(2, join(LIGHT, model="other"))
    tight = only_launch(made.ask(1, 15.0))
    assert made.ask(2, 500.0) == []
    assert only_launch(made.at(10.0).finish(tight)).source == 2
