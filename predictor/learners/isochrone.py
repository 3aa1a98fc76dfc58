"""This project's learner as it serves: linear experts on richer features, mixed by which was right of late.

Everything is in log slowdown. Launches are decided by `slowdown_function`, whose log-linear form a forecast can
evaluate at each step; the other experts only set its weights.
"""

from __future__ import annotations

from math import exp, expm1, log
from operator import mul
from typing import ClassVar, NamedTuple, Protocol

import msgspec
import numpy as np

from predictor.features import Exposure, Own, check
from predictor.learners.hedge import Hedge
from predictor.learners.keyed_means import KeyedMeans
from predictor.learners.learner import State, clipped
from predictor.learners.linear import PRIOR
from predictor.learners.log_linear import PAPER, WIDTH, inputs, prior, rate_prior, slowdown_function
from predictor.learners.regression import Vector
from predictor.learners.stacked_rls import StackedRls
from predictor.slowdown_function import LOG_MAX, LOG_MIN, SlowdownFunction

_REGRESSIONS = 4
_STEADY, _RECENT, _RATE, _PAPER = range(_REGRESSIONS)
"""Regressions: log slowdown without and with forgetting, 1 / slowdown, and the paper's."""
_FORGETTING = 0.985
_EXPERTS = 7
_DRIFT_BATCHES = 4.0
"""Batches in the moving average of the machine's drift: all of them are slow, or fast, for a while."""
_DRIFT_WEIGHTS = (0.0, 0.4, 0.8)
"""Shares of the drift that enter a prediction, by experts."""
_BLOCK, _EARLY = 16, 64
"""Samples that are learned together, and before how many each is learned by itself."""
_SURE = 20
"""With fewer samples, the range of slowdowns seen bounds predictions half as tightly."""
_OFFSET_STEP = 0.02
"""A change of the drift offset, in log slowdown, that slowdown functions tell before the next block is learned."""
_ERROR_MAX = 0.4
"""Bound of one batch's error, in log slowdown: the first batches of a server take ten times as long
while others start, and a model that is thought that slow is not launched, so that nothing corrects it."""
_BELOW, _ABOVE = 0.3, 0.5
"""Margins of an expert beyond the slowdowns seen so far, in log slowdown."""

_COUNTS = tuple(map(str, range(33)))
"""Numbers of co-runners that are told apart: 0 to 31, and more."""
_NO_GAUSSIAN_PROCESS: State = {"samples": [], "counters": [0, 0, 0, 1], "slots": {}, "fit": None}
"""The state's field `kernel`: earlier versions kept a Gaussian process there."""


class _Part(Protocol):
    """A piece of the learner with a state of its own."""

    def state(self) -> object: ...
    def restore(self, state: object) -> None: ...


class _Pending(NamedTuple):
    """A sample that waits to be learned. x: (WIDTH,) `inputs`; drift: before it."""

    own: Own
    seen: Exposure
    x: list[float]
    slowdown: float
    drift: float


class Isochrone:
    """Slowdown of a batch by a log-linear form, state constant in size."""

    name: ClassVar[str] = "isochrone"

    def __init__(self) -> None:
        self._regressions = StackedRls(*_priors(), [1.0, _FORGETTING, 1.0, 1.0])
        self._masks = np.ones((_REGRESSIONS, WIDTH))
        self._masks[_PAPER] = 0.0
        self._masks[_PAPER, list(PAPER)] = 1.0
        self._counts = KeyedMeans(64, 1e9)
        self._expert_hedge = Hedge(_EXPERTS)
        self._residual_hedge = Hedge(6)
        self._drift_hedge = Hedge(len(_DRIFT_WEIGHTS))
        self._models = KeyedMeans(256, 30.0)
        self._batch_sizes = KeyedMeans(1024, 30.0)
        self._co_locations = KeyedMeans(2048, 50.0)
        self._samples, self._lowest, self._highest = 0, 0.0, 0.0
        self._set_bounds()
        self._drift = 0.0
        """Moving average of how far batches were off of late, in log slowdown."""
        self._pending: list[_Pending] = []
        self._functions: dict[Own, SlowdownFunction] = {}
        """As of the last block, without any drift."""
        self.revision = 0
        self._refresh()

    def predict_one(self, own: Own, seen: Exposure) -> float:
        """By the form that launches are decided by, which sees co-runners as sums."""
        check(own, seen)
        return self.slowdown_function(own).slowdown(seen.sums, expm1(seen.sharing))

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        """The log-linear form for a batch, with the present drift offset."""
        known = self._functions.get(own)
        if known is None:
            known = self._functions[own] = slowdown_function(own, self._fast, self._own_residual(own))
        return known._replace(base=known.base + self._offset)

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        """Batches are learned in blocks: most calls only keep one for later."""
        check(own, seen, slowdown)
        x = inputs(own, seen)
        expected = self._within(sum(map(mul, self._fast, x)) + self._own_residual(own))
        error = log(clipped(slowdown)) - expected
        error = max(self._offset - _ERROR_MAX, min(self._offset + _ERROR_MAX, error))
        self._pending.append(_Pending(own, seen, x, exp(expected + error), self._drift))
        self._drift += (error - self._drift) / _DRIFT_BATCHES
        if abs(self._drift_weight * self._drift - self._offset) > _OFFSET_STEP:
            self._set_offset()
        if len(self._pending) >= (_BLOCK if self._samples >= _EARLY else 1):
            self._learn_pending()

    def reset_drift(self) -> None:
        """Forget the drift that the machine is in: what is left is what batches do to each other."""
        self._drift = 0.0
        self._refresh()

    def _learn_pending(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        x = np.array([sample.x for sample in pending])
        slowdowns = np.array([sample.slowdown for sample in pending])
        truths = np.log(slowdowns)
        self._learn_mixture(pending, x, truths)
        masked = self._masks[:, None, :] * x
        masked[_RATE] *= slowdowns[:, None]  # weighs by relative error: slowdown × (w·x) ≈ 1
        self._regressions.learn(masked, np.stack([truths, truths, np.ones(len(pending)), slowdowns]))
        self._refresh()

    def _learn_mixture(self, pending: list[_Pending], x: Vector, truths: Vector) -> None:
        """Each hedge judges what it would have predicted before any of these was known."""
        linear = (x @ self._regressions.weights.T).tolist()
        experts = [self._experts(s.seen, y) for s, y in zip(pending, linear, strict=True)]
        mixed = [self._expert_hedge.mix(each) for each in experts]
        refined = [self._refined(s.own, s.seen, y) for s, y in zip(pending, mixed, strict=True)]
        drifted = [
            [self._residual_hedge.mix(each) + weight * s.drift for weight in _DRIFT_WEIGHTS]
            for s, each in zip(pending, refined, strict=True)
        ]
        self._drift_hedge.learn(drifted, truths)
        self._residual_hedge.learn(refined, truths)
        self._expert_hedge.learn(experts, truths)
        for sample, y, truth in zip(pending, mixed, truths.tolist(), strict=True):
            self._counts.learn("all", truth)
            self._counts.learn(_count(sample.seen), truth)
            self._learn_residual(sample.own, sample.seen, y, truth)
            self._widen_range(truth)

    def _refresh(self) -> None:
        """The form follows the weights; what followed from the old ones is void."""
        a, b = self._expert_hedge.weights[2:4]
        share = a / (a + b) if a + b > 0.0 else 0.5
        weights = self._regressions.weights
        self._fast: list[float] = (share * weights[_STEADY] + (1.0 - share) * weights[_RECENT]).tolist()
        self._drift_weight = sum(map(mul, self._drift_hedge.weights, _DRIFT_WEIGHTS))
        self._functions.clear()
        self._set_offset()

    def _set_offset(self) -> None:
        """Slowdown functions have the present drift from now on."""
        self._offset = self._drift_weight * self._drift
        self.revision += 1

    def _experts(self, seen: Exposure, linear: list[float]) -> list[float]:
        steady, recent, rate, paper = linear
        low, high = self._low, self._high
        rate = -log(rate) if rate > 0.0 else high
        paper = log(paper) if paper > 0.0 else low
        counted, mean = self._counts.get(_count(seen))
        within = [high if y > high else y if y > low else low for y in (steady, recent, rate, paper)]
        # The steady one twice: the state has the weights of seven experts.
        return [self._counts.get("all")[1], mean if counted else within[0], *within, within[0]]

    def _within(self, y: float) -> float:
        """Not far beyond what was ever seen."""
        return self._high if y > self._high else y if y > self._low else self._low

    def _widen_range(self, truth: float) -> None:
        self._samples += 1
        self._lowest, self._highest = min(self._lowest, truth), max(self._highest, truth)
        self._set_bounds()

    def _set_bounds(self) -> None:
        room = 1.0 if self._samples >= _SURE else 2.0
        self._low = max(LOG_MIN, self._lowest - room * _BELOW)
        self._high = min(LOG_MAX, self._highest + room * _ABOVE)

    def _own_residual(self, own: Own) -> float:
        """By which the model, and this batch size of it, differ from what the experts say."""
        return self._models.shrunk(own.model, 4.0) + self._batch_sizes.shrunk(f"{own.model}:{own.batch_size}", 4.0)

    def _refined(self, own: Own, seen: Exposure, mixed: float) -> list[float]:
        """The experts' mixture, with residuals of the model and size, and beside the mean of the exact co-location."""
        model = mixed + self._models.shrunk(own.model, 4.0)
        size = model + self._batch_sizes.shrunk(f"{own.model}:{own.batch_size}", 4.0)
        weight, mean = self._co_locations.get(str(seen.signature)) if seen.signature is not None else (0.0, 0.0)
        return [
            mixed,
            model,
            size,
            (weight * mean + mixed) / (weight + 1.0),
            (weight * mean + 4.0 * mixed) / (weight + 4.0),
            (weight * mean + 2.0 * size) / (weight + 2.0),
        ]

    def _learn_residual(self, own: Own, seen: Exposure, mixed: float, truth: float) -> None:
        residual = truth - mixed
        model = self._models.shrunk(own.model, 4.0)
        self._models.learn(own.model, residual)
        self._batch_sizes.learn(f"{own.model}:{own.batch_size}", residual - model)
        if seen.signature is not None:
            self._co_locations.learn(str(seen.signature), truth)

    def _parts(self) -> dict[str, _Part]:
        """By their names in the state."""
        return {
            "bank": self._regressions,
            "counts": self._counts,
            "first": self._expert_hedge,
            "second": self._residual_hedge,
            "third": self._drift_hedge,
            "models": self._models,
            "kinds": self._batch_sizes,
            "places": self._co_locations,
        }

    def state(self) -> State:
        self._learn_pending()
        parts: State = {name: part.state() for name, part in self._parts().items()}
        return {
            "kernel": _NO_GAUSSIAN_PROCESS,
            **parts,
            "range": [self._samples, self._lowest, self._highest, self._drift],
        }

    def restore(self, state: State) -> None:
        """Become what `state()` described. Raises ValueError, unchanged, on anything else."""
        fresh = Isochrone()
        for name, part in fresh._parts().items():
            part.restore(state.get(name))
        found = msgspec.convert(state.get("range"), tuple[int, float, float, float])
        fresh._samples, fresh._lowest, fresh._highest, fresh._drift = found
        fresh._set_bounds()
        fresh.revision = self.revision
        fresh._refresh()
        self.__dict__.update(fresh.__dict__)


def _priors() -> tuple[Vector, Vector]:
    """(_REGRESSIONS, WIDTH) means and variances of the regressions' weights."""
    mean, variance = prior()
    paper = np.zeros(WIDTH)
    paper[list(PAPER)] = PRIOR
    return np.stack([mean, mean, rate_prior(), paper]), np.stack([variance, variance, variance, np.ones(WIDTH)])


def _count(seen: Exposure) -> str:
    n = seen.sums[0]
    return _COUNTS[round(n)] if 0.0 < n < len(_COUNTS) - 1 else _COUNTS[-1 if n > 0.0 else 0]
