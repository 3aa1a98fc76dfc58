"""Test-then-train over recorded samples with every learner: the paper's protocol, and ours.

A prediction is made with the model as of the batch's start; its measurement is revealed once the batch has ended.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from predictor.bound import UpperBound
from predictor.features import Exposure, Own
from predictor.learners.baselines import CountMean, Mean, NoInterference
from predictor.learners.isochrone import Isochrone
from predictor.learners.learner import Learner
from predictor.learners.linear import Offline, Rls, Sgd, fit
from predictor.samples import Sample, Samples, training_sample_of

LEARNERS: dict[str, Callable[[], Learner]] = {
    learner.name: learner for learner in (NoInterference, Mean, CountMean, Offline, Sgd, Rls, Isochrone)
}
"""Makes a fresh learner by its name. `isochrone` is the one that launches are decided by."""
SETTLED = 500
"""`mape_after_500`: the error of the batches after so many."""


class Score(msgspec.Struct, frozen=True):
    """One learner over one log. Errors are relative to the measured execution time; mse is of slowdown."""

    mse: float
    mape: float
    mape_after_500: float | None
    relative_error_p50: float
    relative_error_p75: float
    relative_error_p95: float
    coverage: float
    inflation: float
    predict_us_p50: float
    learn_us_p50: float | None
    learn_us_mean: float | None
    """For a learner that takes several batches at once, whose median says little."""


class Evaluation(msgspec.Struct, frozen=True):
    """samples: how many were tested, throttled: how many of them while the device's clocks were throttled."""

    samples: int
    throttled: int
    features: tuple[str, ...]
    learners: dict[str, Score]


class _Case(NamedTuple):
    start_ns: int
    end_ns: int
    own: Own
    seen: Exposure
    slowdown: float


class Trace(NamedTuple):
    """Per tested batch, in the order of their start."""

    predicted: list[float]
    multiplier: list[float]
    predict_ns: list[int]
    learn_ns: list[int]


class Replay(NamedTuple):
    """Predictions of each learner for each batch, in the order of their start. slowdowns: (tested,) as measured."""

    slowdowns: NDArray[np.float64]
    traces: dict[str, Trace]

    def scores(self) -> dict[str, Score]:
        return {name: _score(trace, self.slowdowns) for name, trace in self.traces.items()}

    def squared_errors(self, learner: str) -> NDArray[np.float64]:
        """(tested,) of slowdown."""
        squares: NDArray[np.float64] = (np.array(self.traces[learner].predicted) - self.slowdowns) ** 2
        return squares


def evaluate(
    tested: Sequence[Sample],
    features: tuple[str, ...],
    training: Sequence[Sample] = (),
    learners: Sequence[str] = tuple(LEARNERS),
) -> Evaluation:
    """`training` comes first and is not scored. Raises ValueError where there is nothing to test."""
    scores = replay(tested, features, training, learners).scores()
    return Evaluation(len(tested), sum(bool(s.throttled) for s in tested), features, scores)


def replay(
    tested: Sequence[Sample], features: tuple[str, ...], training: Sequence[Sample], learners: Sequence[str]
) -> Replay:
    """`evaluate` batch by batch. Raises ValueError where there is nothing to test."""
    if not tested:
        raise ValueError("no samples are left to test")
    train, test = _cases(training, features), _cases(tested, features)
    traces = {name: _run(LEARNERS[name](), train, test) for name in learners}
    return Replay(np.array([c.slowdown for c in test]), traces)


def split(samples: Samples, train_fraction: float) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The first part by start, and the rest."""
    at = int(len(samples.samples) * train_fraction)
    return samples.samples[:at], samples.samples[at:]


def _cases(samples: Sequence[Sample], features: tuple[str, ...]) -> list[_Case]:
    ordered = sorted(samples, key=lambda s: s.start_ns)
    return [_Case(s.start_ns, s.end_ns, *training_sample_of(s, features)) for s in ordered]


def _run(learner: Learner, train: Sequence[_Case], test: Sequence[_Case]) -> Trace:
    _train(learner, train)
    bound, trace = UpperBound(), Trace([], [], [], [])
    unseen: list[tuple[int, int]] = []
    for i, case in enumerate(test):
        while unseen and unseen[0][0] <= case.start_ns:
            j = heapq.heappop(unseen)[1]
            bound.learn_one(test[j].slowdown / trace.predicted[j])
            trace.learn_ns.append(_learn(learner, test[j]))
        began_ns = perf_counter_ns()
        predicted = learner.predict_one(case.own, case.seen)
        trace.predict_ns.append(perf_counter_ns() - began_ns)
        trace.predicted.append(predicted)
        trace.multiplier.append(bound.multiplier)
        heapq.heappush(unseen, (case.end_ns, i))
    return trace


def _train(learner: Learner, train: Sequence[_Case]) -> None:
    """The paper's three start from the same weights, fitted on the training set; the others learn it in order."""
    if not train:
        return
    if isinstance(learner, Offline | Sgd | Rls):
        learner.start(fit([(c.own, c.seen, c.slowdown) for c in train]))
        return
    for case in sorted(train, key=lambda c: c.end_ns):
        _learn(learner, case)


def _learn(learner: Learner, case: _Case) -> int:
    began_ns = perf_counter_ns()
    learner.learn_one(case.own, case.seen, case.slowdown)
    return perf_counter_ns() - began_ns


def _score(trace: Trace, truth: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Score:
    predicted, multiplier = np.array(trace.predicted), np.array(trace.multiplier)
    error = np.abs(predicted - truth) / truth
    p50, p75, p95 = np.percentile(error, (50, 75, 95)).tolist()
    return Score(
        mse=float(np.mean((predicted - truth) ** 2)),
        mape=float(error.mean()),
        mape_after_500=float(error[SETTLED:].mean()) if len(error) > SETTLED else None,
        relative_error_p50=p50,
        relative_error_p75=p75,
        relative_error_p95=p95,
        coverage=float(np.mean(truth <= predicted * multiplier)),
        inflation=float(multiplier.mean()),
        predict_us_p50=float(np.median(trace.predict_ns)) / 1e3,
        learn_us_p50=float(np.median(trace.learn_ns)) / 1e3 if trace.learn_ns else None,
        learn_us_mean=float(np.mean(trace.learn_ns)) / 1e3 if trace.learn_ns else None,
    )
