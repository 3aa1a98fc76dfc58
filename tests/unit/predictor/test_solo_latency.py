"""Estimates of solo latency, from the profile to what batches took."""

from __future__ import annotations

from random import Random

import pytest

from predictor.features import Own
from predictor.solo_latency import GROUPS_MAX, OLD_NS, SoloLatency
from tests.fakes.builders import MS, START_NS, load, profile

PROFILE = profile(10.0, 0.5, 0.25, 0.125)
"""10 ms of one row, 17 of eight."""
OTHER = 77
"""A group that the profile is not of."""


def solo(measured_group: int | None = 0) -> SoloLatency:
    return SoloLatency("m", PROFILE, measured_group, START_NS)


def believed_ms(known: SoloLatency, rows: int = 1, group: int | None = 0) -> float:
    return known.own(rows, group).load.solo_ns / MS


def learn(known: SoloLatency, *took_ms: float, rows: int = 1, group: int = 0, at_ms: float = 0.0) -> None:
    for ms in took_ms:
        known.learn(rows, group, ms * MS, START_NS + round(at_ms * MS))


def test_the_profile_is_the_first_estimate_for_every_shape() -> None:
    known = solo()
    assert known.own(2, 0) == Own("m", 2, load(11.0, 0.5, 0.25, 0.125)) == known.own(2, OTHER) == known.own(2, None)
    assert known.knows(0) and not known.knows(OTHER)
    assert known.guesses(OTHER) and not known.guesses(0)


def test_a_profile_that_is_a_guess_knows_no_shape() -> None:
    known = solo(None)
    assert not known.knows(0) and known.guesses(0)
    assert known.own(1, 0).load == load(10.0, 0.5, 0.25, 0.125)
    learn(known, 0.01)
    assert not known.guesses(0)
    assert believed_ms(known) == pytest.approx(0.01)
    learn(known, 0.01, 0.01)
    assert known.knows(0)


@pytest.mark.parametrize("real_ms", [260.0, 0.4])
def test_a_profile_that_is_wrong_by_much_is_corrected_by_three_batches(real_ms: float) -> None:
    known = solo()
    learn(known, real_ms, real_ms, real_ms)
    assert believed_ms(known) == pytest.approx(real_ms)
    assert believed_ms(known, rows=8) == pytest.approx(1.7 * real_ms)  # a size that was not measured goes by the others
    assert believed_ms(known, group=None) == pytest.approx(real_ms)


def test_shapes_and_sizes_are_kept_apart() -> None:
    known = solo()
    learn(known, *[1.0] * 3, group=1)
    learn(known, *[50.0] * 3, group=2)
    learn(known, *[99.0] * 3, group=2, rows=8)
    assert [believed_ms(known, group=group) for group in (0, 1, 2)] == pytest.approx([10.0, 1.0, 50.0])
    assert believed_ms(known, rows=8, group=2) == pytest.approx(99.0)
    assert believed_ms(known, rows=8, group=1) == pytest.approx(1.7)


def test_a_shape_that_was_not_measured_has_the_models_estimate() -> None:
    known = solo()
    learn(known, 260.0, group=1)
    assert believed_ms(known, group=OTHER) == pytest.approx(260.0)
    assert not known.knows(OTHER) and not known.guesses(OTHER)
    assert believed_ms(known) == 10.0  # what the profile is of was measured


def test_single_pauses_of_the_machine_move_no_estimate() -> None:
    known, random = solo(), Random(1)
    for _ in range(300):
        learn(known, 2_000.0 if random.random() < 0.1 else 10.0)
        assert believed_ms(known) == 10.0


def test_cold_first_runs_are_forgotten_with_the_next_and_refuse_no_request() -> None:
    known = solo(None)
    learn(known, 100.0)
    assert believed_ms(known) == pytest.approx(100.0)
    learn(known, 50.0)
    assert not known.knows(0)
    learn(known, 10.2)
    assert believed_ms(known) == pytest.approx(10.2)
    assert known.knows(0)


def test_noise_leaves_an_estimate_close_and_mostly_as_it_was() -> None:
    known, random, seen = solo(), Random(3), set()
    for _ in range(500):
        learn(known, 12.0 * random.lognormvariate(0.0, 0.03))
        seen.add(id(known.own(1, 0)))
    assert believed_ms(known) == pytest.approx(12.0, rel=0.08)
    assert len(seen) < 50


def test_a_co_run_is_learned_from_only_where_nothing_better_is_known() -> None:
    known = solo()
    assert not known.learns_from_co_run(1, 0, 30 * MS)
    assert known.learns_from_co_run(1, 0, 7 * MS)  # no batch is faster for its co-runners
    for _ in range(3):
        assert known.learns_from_co_run(1, OTHER, 30 * MS)
        learn(known, 20.0, group=OTHER)
    assert not known.learns_from_co_run(1, OTHER, 30 * MS)
    assert known.learns_from_co_run(1, OTHER, 15 * MS)


def test_an_old_estimate_is_doubted_once_a_second_and_then_learned_from_a_co_run() -> None:
    known = solo()
    learn(known, *[80.0] * 9)
    assert not known.doubt(1, 0, START_NS + OLD_NS - 1)
    assert known.doubt(1, 0, START_NS + OLD_NS)
    assert not known.doubt(1, 0, START_NS + 2 * OLD_NS - 1)
    assert known.learns_from_co_run(1, 0, 10**12)
    learn(known, 10.0, at_ms=1_200.0)
    assert believed_ms(known) == pytest.approx(10.0)
    assert not known.learns_from_co_run(1, 0, 10**12)
    assert not known.doubt(1, 0, START_NS + 2 * OLD_NS)
    assert known.doubt(8, OTHER, START_NS) and not known.doubt(8, OTHER + 1, START_NS + 1)


def test_one_size_is_doubted_while_another_is_measured() -> None:
    known = solo()
    learn(known, *[300.0] * 3, rows=8)
    learn(known, 10.0, at_ms=1_500.0)
    assert known.doubt(8, 0, START_NS + 1_500 * MS)
    assert not known.doubt(1, 0, START_NS + 1_500 * MS)


def test_the_shapes_measured_last_and_the_profiled_one_are_kept() -> None:
    known = solo()
    for group in range(1, 3 * GROUPS_MAX):
        learn(known, *[20.0] * 3, group=group)
        learn(known, 5.0, group=1)
    assert len(known) == GROUPS_MAX
    assert known.knows(0) and known.knows(1) and known.knows(3 * GROUPS_MAX - 1) and not known.knows(2)


def test_few_sizes_are_kept_however_many_rows_a_caller_sends() -> None:
    known, random = solo(), Random(5)
    for _ in range(3_000):
        rows = random.randrange(1, 2**31)
        assert 0 < known.own(rows, 0).load.solo_ns <= 10**13
        learn(known, 10.0, rows=rows)
    group = known._groups[0]
    assert len(group.sizes) < 300
    assert len(group.owns) <= 128 and len(known._others.owns) <= 128
