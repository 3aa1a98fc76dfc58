"""Learners that have learned from generated batches."""

from __future__ import annotations

from predictor.evaluate import LEARNERS
from predictor.features import Exposure, Own, exposure
from predictor.learners.learner import Learner
from predictor.samples import co_runners_of, own_of
from tests.fakes.contended_samples import Contention, generate

Batch = tuple[Own, Exposure, float]


def batches(count: int, law: str = "mixed", noise: float = 0.05) -> list[Batch]:
    found = []
    for sample in generate(Contention(law, lanes=4, count=count, models=6, noise=noise)):
        own = own_of(sample)
        found.append((own, exposure(own, co_runners_of(sample)), sample.slowdown))
    return found


def trained(name: str, samples: list[Batch]) -> Learner:
    learner = LEARNERS[name]()
    for sample in samples:
        learner.learn_one(*sample)
    return learner
