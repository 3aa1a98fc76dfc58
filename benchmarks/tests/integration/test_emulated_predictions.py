"""Learners on emulated logs of GPUs: the deciding form knows who is beside whom."""

from __future__ import annotations

from itertools import pairwise

import pytest

from benchmarks.emulated.logs import POPULATIONS, Population
from benchmarks.emulated.prediction import Prediction, predictions


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Prediction]:
    return {(p.kind, p.learner): p for p in predictions(1, samples=1_200)}


@pytest.mark.parametrize("kind", POPULATIONS)
def test_identity_is_worth_more_than_features(kind: str, found: dict[tuple[str, str], Prediction]) -> None:
    ours, rls = found[kind, "isochrone"], found[kind, "rls"]
    for mine, theirs in zip(ours.mape, rls.mape, strict=True):
        assert mine < (0.3 * theirs if theirs > 0.1 else theirs)
    assert 0.935 < ours.coverage_range[0] <= ours.coverage_range[1] < 0.965


@pytest.mark.parametrize("kind", POPULATIONS)
def test_orders_are_of_the_same_population(kind: str) -> None:
    """In blocks, thirty of a set come in succession; shuffled, hardly two."""
    population = POPULATIONS[kind](0)
    runs = [_changes(population, blocked=blocked) for blocked in (False, True)]
    assert runs[0] > 250
    assert runs[1] == 9


def _changes(population: Population, *, blocked: bool) -> int:
    """Number of times that one sample is of another set than the one before, among 300."""
    batches = [
        sorted([(s.model, s.batch_size), *((c.model, c.batch_size) for c in s.co_runners)])
        for s in population.log(300, 1, blocked=blocked)
    ]
    return sum(before != after for before, after in pairwise(batches))
