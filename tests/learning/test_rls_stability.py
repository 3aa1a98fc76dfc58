"""The scheduler's RLS where samples say little for a long time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from predictor.rls import RlsPredictor
from tests.unit.test_predictor import Vector, linear_samples, own

_POOR: dict[str, Callable[[np.random.Generator], Vector]] = {
    "constant": lambda _: np.array((0.5, 0.4, 0.3, 0.6, 0.2, 0.1)),
    "collinear": lambda rng: rng.uniform() * np.array((1.0, 0.5, 0.25, 1.0, 0.5, 0.25)),
    "sparse": lambda rng: np.eye(6)[rng.integers(6)] * (rng.uniform() < 0.01),
    "huge": lambda rng: rng.uniform(0, 1e6, 6),
    "once huge": lambda rng: rng.uniform(0, 1, 6) * (1e6 if rng.uniform() < 0.001 else 1.0),
}


@pytest.mark.parametrize("kind", _POOR)
def test_poor_excitation_winds_nothing_up(kind: str) -> None:
    """Plain forgetting lets the covariance grow without bound where samples say nothing; errors of 1e4 follow."""
    rng = np.random.default_rng(2)
    predictor = RlsPredictor(forgetting=0.98)
    for x in [_POOR[kind](rng) for _ in range(20_000)]:
        neighbours = (float(x[3]), float(x[4]), float(x[5]))
        predictor.learn_one(own(x[:3]), neighbours, float(np.exp(0.3 * rng.standard_normal())))
    assert np.abs(predictor.weights).max() < 20
    covariance = np.array(predictor._covariance)
    assert (covariance == covariance.T).all()
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
    assert covariance.trace() < 1_500
    # What comes next differs from all before: it is learned, not overshot.
    for sample in linear_samples(300):
        predictor.learn_one(*sample)
        assert np.abs(predictor.weights).max() < 50
    assert predictor.predict_one(own(np.full(3, 0.5)), (1.0, 1.0, 1.0)) == pytest.approx(2.875, abs=0.2)
