"""Models are told apart by what they do and suffer, which features do not tell."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from predictor.features import CoRunner, Own, exposure
from predictor.learners.isochrone import Isochrone
from predictor.slowdown_function import SLOTS, ZERO_SUMS
from predictor.workload import Load
from tests.fakes.trained import batches, trained

MS = 1_000_000
_ALIKE = Load(4 * MS, 0.3, 0.2, 0.3)


def beside(learner: Isochrone, own: Own, *others: Own) -> float:
    """Its slowdown as forecasts have it."""
    sums = np.sum([learner.contribution(other) for other in others], axis=0).tolist()
    return learner.slowdown_function(own).slowdown(sums)


def learn_sets(learner: Isochrone, truth: Callable[[Own, list[Own]], float], owns: list[Own], count: int) -> None:
    """Sets of two to four at random, of which the first is measured, with noise of 1 %."""
    rng = np.random.default_rng(5)
    for _ in range(count):
        own, *others = [owns[i] for i in rng.permutation(len(owns))[: rng.integers(2, 5)]]
        seen = exposure(own, [CoRunner(*other) for other in others])
        learner.learn_one(own, seen, truth(own, others) * float(np.exp(0.01 * rng.standard_normal())))


def test_models_that_look_alike_are_told_apart_by_what_they_do_and_suffer() -> None:
    sensitivity, pressure = {"a": 0.2, "b": 1.0, "c": 0.5, "d": 0.3}, {"a": 0.5, "b": 0.1, "c": 1.2, "d": 0.8}
    owns = [Own(model, 1, _ALIKE) for model in sensitivity]

    def truth(own: Own, others: list[Own]) -> float:
        return 1.0 + sensitivity[own.model] * sum(pressure[other.model] for other in others)

    learner = Isochrone()
    learn_sets(learner, truth, owns, 600)
    for own in owns:
        others = [other for other in owns if other is not own]
        assert beside(learner, own, *others) == pytest.approx(truth(own, others), rel=0.03)
        for other in others:
            assert beside(learner, own, other) == pytest.approx(truth(own, [other]), rel=0.05)


def test_a_pair_of_models_that_is_unlike_all_others_is_learned() -> None:
    owns = [Own(model, 1, _ALIKE) for model in "abcdef"]

    def truth(own: Own, others: list[Own]) -> float:
        return 1.0 + sum(0.9 if (own.model, other.model) == ("a", "b") else 0.3 for other in others)

    learner = Isochrone()
    learn_sets(learner, truth, owns, 1_500)
    a, b, c = owns[:3]
    assert beside(learner, a, b) == pytest.approx(1.9, rel=0.07)
    assert beside(learner, a, c) == pytest.approx(1.3, rel=0.05)
    assert beside(learner, b, a) == pytest.approx(1.3, rel=0.05)
    assert beside(learner, c, b) == pytest.approx(1.3, rel=0.05)


def test_sizes_of_a_model_share_what_is_known_of_it() -> None:
    """A size that never ran is taken for one like the model's others, not like another model."""
    sensitivity = {"a": 1.5, "b": 0.1}
    owns = [Own(model, size, _ALIKE) for model in sensitivity for size in (1, 2, 4)]
    learner = Isochrone()
    learn_sets(learner, lambda own, others: 1.0 + 0.5 * sensitivity[own.model] * len(others), owns, 400)
    new, other = (Own(model, 3, _ALIKE) for model in sensitivity)
    assert beside(learner, new, owns[0]) == pytest.approx(1.75, rel=0.1)
    assert beside(learner, other, owns[0]) == pytest.approx(1.05, rel=0.1)


def test_what_co_runners_contribute_adds_up() -> None:
    """Without a drift: 1 + the sum of what each does by itself."""
    learner = trained("isochrone", batches(400))
    assert isinstance(learner, Isochrone)
    learner.reset_drift()
    own, *others = [Own(f"m{i}", 2, _ALIKE) for i in range(4)]
    alone = learner.slowdown_function(own).slowdown(ZERO_SUMS)
    each = [beside(learner, own, other) - alone for other in others]
    assert sum(other.load.compute for other in (own, *others[:2])) < 1.0  # so that no share is overdrawn
    assert beside(learner, own, *others[:2]) == pytest.approx(alone + sum(each[:2]))


def test_more_models_than_slots_are_told_apart_all_the_same() -> None:
    """Those without a slot share one: what each is like counts there too."""
    owns = [Own(f"m{i}", 1, _ALIKE) for i in range(2 * SLOTS)]
    pressure = dict(zip(owns, np.linspace(0.05, 1.0, len(owns)).tolist(), strict=True))
    learner = Isochrone()
    learn_sets(learner, lambda _, others: 1.0 + sum(pressure[other] for other in others), owns, 3_000)
    errors = [abs(beside(learner, owns[0], other) / (1.0 + pressure[other]) - 1.0) for other in owns[1:]]
    assert len({learner.contribution(own).index(max(learner.contribution(own)[3:])) for own in owns}) == SLOTS
    assert np.mean(errors) < 0.03


def test_a_slot_goes_to_another_model_once_its_own_is_gone() -> None:
    learner = Isochrone()
    early, late = ([Own(f"{name}{i}", 1, _ALIKE) for i in range(SLOTS)] for name in ("early", "late"))
    for owns in (early, late):
        learn_sets(learner, lambda _, others: 1.0 + 0.3 * len(others), owns, 1_500)
    slots = [learner.contribution(own)[3] for own in late]
    assert sum(pressure > 0.0 for pressure in slots) == 1, "all but one model have a slot of their own"
    for own, other in pairwise(late):
        assert beside(learner, own, other) == pytest.approx(1.3, rel=0.05)
