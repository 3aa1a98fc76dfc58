"""Combinations of batches: means, bounds, state."""

from __future__ import annotations

import json

import pytest

from predictor.machines.combinations import COMBINATIONS_MAX, KINDS_MAX, Combinations

A, B, C = ("a", 1), ("b", 2), ("c", 4)


def test_a_combination_is_the_mean_of_its_samples_whatever_the_order_of_co_runners() -> None:
    seen = Combinations()
    seen.add(A, {B: 1.0, C: 0.5}, 0.2)
    seen.add(A, {C: 0.51, B: 1.0}, 0.4)
    seen.add(B, {A: 1.0}, 0.7)
    kinds, found = seen.observations()
    row = found.counts.tolist().index(2.0)
    assert found.log_slowdowns[row] == pytest.approx(0.3)
    assert kinds[found.own[row]] == A
    assert dict(zip(kinds, found.overlaps[row], strict=True)) == {A: 0.0, B: 1.0, C: 0.5}


def test_samples_without_co_runners_are_not_kept() -> None:
    seen = Combinations()
    seen.add(A, {}, 0.1)
    seen.add(A, {B: 0.01}, 0.1)
    assert len(seen) == 0
    assert seen.observations()[1].overlaps.shape == (0, 0)


def test_later_samples_replace_older_ones() -> None:
    seen = Combinations()
    for value in [0.0] * 1_000 + [1.0] * 1_000:
        seen.add(A, {B: 1.0}, value)
    assert seen.observations()[1].log_slowdowns[0] > 0.99


def test_the_combination_not_seen_for_longest_goes() -> None:
    seen = Combinations()
    for size in range(1, COMBINATIONS_MAX + 100):
        seen.add(("a", size), {B: 1.0}, 0.1)
        seen.add(A, {B: 1.0}, 0.1)
    assert len(seen) == COMBINATIONS_MAX
    kinds, found = seen.observations()
    assert len(kinds) == KINDS_MAX
    assert {A, B, ("a", COMBINATIONS_MAX + 99)} <= set(kinds)
    assert found.overlaps.shape == (KINDS_MAX - 1, KINDS_MAX)


def test_state_survives_json() -> None:
    seen, fresh = Combinations(), Combinations()
    seen.add(A, {B: 1.0, C: 0.5}, 0.2)
    seen.add(B, {A: 1.0}, 0.7)
    fresh.restore(json.loads(json.dumps(seen.state())))
    assert fresh.state() == seen.state()


@pytest.mark.parametrize(
    "state",
    [
        None,
        [[[["a", 1], []], 1, 0.1]],
        [[[["a", 1], [[["b", 1], 1.0]]], 0, 0.1]],
        [[[["a", 1], [[["b", 1], 1.0]]], 1, "x"]],
        [[[["a", i], [[["b", 1], 1.0]]], 1, 0.1] for i in range(COMBINATIONS_MAX + 1)],
    ],
)
def test_what_is_no_state_is_refused_and_changes_nothing(state: object) -> None:
    seen = Combinations()
    seen.add(A, {B: 1.0}, 0.2)
    before = seen.state()
    with pytest.raises(ValueError, match=r"xpected|`"):
        seen.restore(state)
    assert seen.state() == before
