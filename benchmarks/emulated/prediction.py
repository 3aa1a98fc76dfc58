"""Errors of the learners on emulated logs of GPUs: `python -m benchmarks.emulated --predict DRAWS`. EMULATED."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.emulated.logs import POPULATIONS
from predictor.evaluate import evaluate
from predictor.workload import FEATURES

LEARNERS = ("count", "rls", "isochrone")
SAMPLES = 2_000


class Prediction(NamedTuple):
    """A learner's figures on one kind of log, means over draws. mape: after 500 batches, shuffled and blocked.

    coverage: of the 95 % bound; the lowest and the highest too, since a mean may hide one that does not hold.
    """

    kind: str
    learner: str
    mape: tuple[float, float]
    coverage: float
    coverage_range: tuple[float, float]
    inflation: float


def predictions(draws: int, samples: int = SAMPLES, learners: Sequence[str] = LEARNERS) -> Iterator[Prediction]:
    """Test-then-train over `draws` logs of each kind in both orders."""
    for kind, population in POPULATIONS.items():
        drawn = [population(seed) for seed in range(draws)]
        found = [
            [
                evaluate(each.log(samples, seed, blocked=blocked), FEATURES, learners=learners).learners
                for seed, each in enumerate(drawn)
            ]
            for blocked in (False, True)
        ]
        for learner in learners:
            orders = [[scores[learner] for scores in order] for order in found]
            shuffled, in_blocks = (
                float(np.mean([score.mape_after_500 or score.mape for score in order])) for order in orders
            )
            scores = [score for order in orders for score in order]
            coverage = [score.coverage for score in scores]
            inflation = float(np.mean([score.inflation for score in scores]))
            held = (min(coverage), max(coverage))
            yield Prediction(kind, learner, (shuffled, in_blocks), float(np.mean(coverage)), held, inflation)
