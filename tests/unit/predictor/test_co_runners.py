"""Who shared a batch's time, and its core."""

from __future__ import annotations

from predictor.co_runners import Company, Stay
from predictor.features import Own
from tests.fakes.builders import load

OWN = Own("m", 1, load(1.0))


def stay_beside(*others: tuple[int, int | None], core: int | None = None, other_core: int | None = None) -> Stay:
    """From 100 to 200, beside others that came and went then; None: they stay."""
    company = Company()
    events = [(100, "own", core)]
    events += [(since, str(i), other_core) for i, (since, _) in enumerate(others)]
    ends = [(until, str(i)) for i, (_, until) in enumerate(others) if until is not None and until <= 200]
    for at, what, on in sorted([*events, *((at, what, -1) for at, what in ends)], key=lambda event: event[0]):
        if on == -1:
            company.finish(what, at)
        else:
            company.launch(what, OWN, at, on)
    return company.finish("own", 200)


def test_a_batch_is_alone_unless_somebody_was_there_for_a_moment() -> None:
    assert stay_beside().alone
    assert stay_beside((50, 100), (200, None), (150, 150)).alone
    assert not stay_beside((50, 101)).alone
    assert not stay_beside((199, None)).alone
    assert not stay_beside((50, None)).alone


def test_who_was_there_only_before_a_part_of_it_is_no_company_for_that_part() -> None:
    stay = stay_beside((50, 120), (180, None))
    assert stay.between(120, 180).alone
    assert not stay.between(119, 180).alone and not stay.between(120, 181).alone


def test_the_crowd_on_a_core_is_a_mean_over_time() -> None:
    assert stay_beside((50, 150), (100, None), core=0, other_core=0).crowd == 1.5
    assert stay_beside((50, 150), core=0, other_core=1).crowd == 0.0
    assert stay_beside((50, 150)).crowd == 0.0
