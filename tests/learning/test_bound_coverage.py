"""The upper bound over whole logs, also where the world changes half-way."""

from __future__ import annotations

import pytest

from predictor.evaluate import evaluate
from predictor.workload import FEATURES
from tests.fakes.contended_samples import Contention, generate


@pytest.mark.parametrize("lanes", [2, 5])
def test_ours_holds_its_bound_when_a_new_model_appears(lanes: int) -> None:
    samples = generate(Contention("mixed", lanes=lanes, count=2_000, models=5, new_model_at=1_000))
    score = evaluate(samples, FEATURES, learners=["isochrone"]).learners["isochrone"]
    assert 0.94 <= score.coverage <= 0.96
    assert score.mape_after_500 is not None
    assert score.mape_after_500 < 0.065
