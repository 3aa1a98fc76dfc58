"""The study's numbers from its logs: pure functions of samples and profiles.

Slowdown is relative to the profiled p95 throughout, as in the paper (arXiv 2512.18725, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.cpu_steal import CpuSteal
from benchmarks.study.ceiling import ceiling
from benchmarks.study.noise import Floor, Noise, gamma_test, noise_floor
from benchmarks.study.plan import COMPARED
from predictor.evaluate import Score, evaluate, replay
from predictor.features import CoRunner, Exposure, Own, ewma_exposure, exposure, static_exposure
from predictor.learners.linear import Offline, fit
from predictor.samples import Sample, TrainingSample, co_runners_of, own_of, training_sample_of
from predictor.workload import FEATURES
from profiler.profile_file import ProfileFile

Vector = NDArray[np.float64]

LEARNERS = ("mean", "count", *COMPARED)
TRAIN_SHARE = 0.75
FEWEST = 20
_SPLIT_SEED = 1
_EXPLAINED = (("static", 0.0), ("EWMA 1/3", 1 / 3), ("EWMA 1/2", 1 / 2), ("EWMA 2/3", 2 / 3), ("integral", 0.0))


def relative_to_p95(samples: Sequence[Sample], profiles: Mapping[str, ProfileFile]) -> list[Sample]:
    """The same samples with the profiled p95 as the solo latency; sizes between profiled ones are interpolated."""
    p95 = {model: file.profile(p95=True) for model, file in profiles.items()}
    return [
        msgspec.structs.replace(
            s,
            solo_ns=p95[s.model].at(s.batch_size).solo_ns,
            co_runners=tuple(
                msgspec.structs.replace(c, solo_ns=p95[c.model].at(c.batch_size).solo_ns) for c in s.co_runners
            ),
        )
        for s in samples
    ]


def undisturbed(samples: Sequence[Sample], cpu_steal: CpuSteal) -> list[Sample]:
    """Samples during which the host took no CPU; all, where that leaves fewer than `FEWEST`."""
    left = [s for s in samples if not cpu_steal.disturbed(s.start_ns, s.end_ns)]
    return left if len(left) >= FEWEST else list(samples)


# Figure 5: what the features lose


class Spread(NamedTuple):
    """Relative errors of one kind of features on the test part: quantiles, and all of them."""

    p25: float
    p50: float
    p75: float
    p95: float
    errors: Vector


def feature_errors(samples: Sequence[Sample]) -> dict[str, Spread]:
    """The linear model fitted on 75 % of the batches, tested on the rest, with each way to see its neighbours."""
    owns = [own_of(s) for s in samples]
    co_runners = [co_runners_of(s) for s in samples]
    slowdowns = [s.slowdown for s in samples]
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(samples))
    train, test = np.split(order, [int(TRAIN_SHARE * len(samples))])
    found = {}
    for name, alpha in _EXPLAINED:
        seen = map(_seen(name, alpha), owns, co_runners)
        predicted, truth = _fitted(list(zip(owns, seen, slowdowns, strict=True)), train, test)
        errors = np.abs(predicted - truth) / truth
        p25, p50, p75, p95 = np.percentile(errors, (25, 50, 75, 95)).tolist()
        found[name] = Spread(p25, p50, p75, p95, errors)
    return found


def _seen(name: str, alpha: float) -> Callable[[Own, Sequence[CoRunner]], Exposure]:
    if name == "static":
        return static_exposure
    return exposure if alpha == 0.0 else lambda own, neighbours: ewma_exposure(own, neighbours, alpha)


def _fitted(
    lessons: Sequence[TrainingSample], train: NDArray[np.int64], test: NDArray[np.int64]
) -> tuple[Vector, Vector]:
    """(test,) predicted and true slowdowns."""
    learner = Offline()
    learner.start(fit([lessons[i] for i in train]))
    tested = [lessons[i] for i in test]
    return np.array([learner.predict_one(own, seen) for own, seen, _ in tested]), np.array([s for _, _, s in tested])


# Table 1: what does not change with the workload


class Tested(NamedTuple):
    """One set: scores by learner, the floor, the noise, and the MSE of trees that know the rest of the set.

    counting: of those that are also told how many neighbours came and went, which tells how long the batch took.
    """

    samples: int
    scores: dict[str, Score]
    floor: Floor
    noise: Noise
    ceiling: float
    counting: float


def scored(training: Sequence[Sample], samples: Sequence[Sample]) -> Tested:
    """A test set after the training set."""
    replayed = replay(samples, FEATURES, training, LEARNERS)
    errors = {learner: replayed.squared_errors(learner) for learner in ("rls", "isochrone")}
    floor, noise = noise_floor(samples, errors), gamma_test(samples, errors)
    return Tested(len(samples), replayed.scores(), floor, noise, ceiling(samples), ceiling(samples, counting=True))


def scores(
    training: Sequence[Sample], tests: Mapping[str, Sequence[Sample]], learners: Sequence[str]
) -> dict[str, dict[str, Score]]:
    """Scores by set and learner; each set after the training set. The paper's three start from the same weights."""
    return {name: evaluate(samples, FEATURES, training, learners).learners for name, samples in tests.items()}


def training_errors(training: Sequence[Sample]) -> tuple[float, float]:
    """MSE on the training set: of the weights that the paper's three start from, and of ours, test-then-train."""
    every = np.arange(len(training))
    predicted, truth = _fitted([training_sample_of(s) for s in training], every, every)
    linear = float(np.mean((predicted - truth) ** 2))
    return linear, evaluate(training, FEATURES, (), ("isochrone",)).learners["isochrone"].mse
