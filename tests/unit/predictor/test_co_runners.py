"""Co-runners of a batch, and of its core."""

from __future__ import annotations

from predictor.co_runners import CoRunners, Execution
from predictor.features import Own, exposure
from tests.fakes.builders import load

OWN = Own("m", 1, load(1.0))


def ended(*others: tuple[int, int | None], core: int | None = None, other_core: int | None = None) -> Execution:
    """From 100 to 200, with co-runners that began and ended then; None: they still run."""
    co_runners = CoRunners()
    events = [(100, "own", core)]
    events += [(since, str(i), other_core) for i, (since, _) in enumerate(others)]
    ends = [(until, str(i)) for i, (_, until) in enumerate(others) if until is not None and until <= 200]
    for at, what, on in sorted([*events, *((at, what, -1) for at, what in ends)], key=lambda event: event[0]):
        if on == -1:
            co_runners.finish(what, at)
        else:
            co_runners.launch(what, OWN, at, on)
    return co_runners.finish("own", 200)


def test_an_execution_is_solo_unless_another_batch_ran_for_a_moment_of_it() -> None:
    assert ended().solo
    assert ended((50, 100), (200, None), (150, 150)).solo
    assert not ended((50, 101)).solo
    assert not ended((199, None)).solo
    assert not ended((50, None)).solo


def test_a_part_of_an_execution_has_the_co_runners_of_that_part_only() -> None:
    execution = ended((50, 120), (180, None))
    assert execution.between(120, 180).solo
    assert not execution.between(119, 180).solo and not execution.between(120, 181).solo


def test_co_runners_on_a_core_are_a_time_mean() -> None:
    assert ended((50, 150), (100, None), core=0, other_core=0).core_co_runners == 1.5
    assert ended((50, 150), core=0, other_core=1).core_co_runners == 0.0
    assert ended((50, 150)).core_co_runners == 0.0


def test_an_exposure_is_that_to_the_co_runners_one_by_one() -> None:
    for core in (None, 0):
        execution = ended((50, 150), (120, 180), (160, None), core=core, other_core=core)
        assert execution.exposure(OWN) == exposure(OWN, execution.co_runners())
    assert execution.exposure(OWN).sharing > 0.0
