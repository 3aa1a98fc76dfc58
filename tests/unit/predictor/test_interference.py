"""What each co-runner is expected to have cost a batch, by a learner whose first weights can be worked out by hand."""

from __future__ import annotations

from math import exp

import pytest

from predictor.features import Own
from predictor.interference import expected_parts, explicable_ns, overlaps_by_model
from predictor.learners.isochrone import Isochrone
from predictor.learners.linear import Rls
from tests.fakes.builders import MS, load

OWN = Own("own", 1, load(10.0))


def other(model: str, compute: float) -> Own:
    return Own(model, 1, load(10.0, compute))


def test_a_part_is_the_overlap_times_what_the_co_runner_alone_adds() -> None:
    overlaps = [(other("a", 0.5), 1.0), (other("b", 1.0), 0.25), (other("a", 0.2), 0.5), (other("none", 0.0), 1.0)]
    assert expected_parts(Rls(), OWN, overlaps) == pytest.approx({"a": 0.15 + 0.03, "b": 0.075})  # 0.3 compute


def test_a_co_runner_on_the_same_core_adds_more() -> None:
    found = expected_parts(Isochrone(), OWN, [(other("far", 0.1), 1.0)], [(other("near", 0.1), 1.0)])
    assert found["near"] > 5 * found["far"]


def test_overlaps_by_model() -> None:
    assert overlaps_by_model([(other("a", 0.0), 0.5), (other("b", 0.0), 0.25)], [(other("a", 0.1), 0.25)]) == {
        "a": 0.75,
        "b": 0.25,
    }


def test_three_standard_deviations_of_the_noise_are_explicable() -> None:
    assert explicable_ns(10 * MS, 1.2, 0.1) == pytest.approx(10 * MS * (1.2 * exp(0.3) - 1.0))
    assert explicable_ns(10 * MS, 0.5, 0.1) == 0.0
