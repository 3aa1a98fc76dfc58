"""This project's learner: linear experts on richer features, a kernel and memories, mixed by who was right of late.

Everything is in log slowdown. `response` is its fast log-linear part for forecasts; `predict_one` is all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from operator import mul
from struct import Struct
from typing import ClassVar, NamedTuple

import msgspec
import numpy as np

from predictor.features import Exposure, Own, check
from predictor.learners.fused_product import FusedLinearProduct
from predictor.learners.gaussian_process import VECTOR, FrozenFit, GaussianProcess
from predictor.learners.hedge import Hedge
from predictor.learners.keyed_means import KeyedMeans
from predictor.learners.learner import State, clipped
from predictor.learners.log_linear import PAPER, WIDTH, inputs, prior, rate_prior, slowdown_function
from predictor.learners.regression import Vector
from predictor.learners.stacked_rls import StackedRls
from predictor.slowdown_function import LOG_MAX, LOG_MIN, SlowdownFunction

_FORGETTING = 0.985
_REGRESSIONS = 4
_STEADY, _RECENT, _RATE, _PAPER = range(_REGRESSIONS)
"""Regressions: log slowdown without and with forgetting, 1 / slowdown, and the paper's."""
_EXPERTS = 7
_SPELL = 4.0
"""Batches that a spell of the machine's is felt from: all of them are slow, or fast, for a while."""
_FELT = (0.0, 0.4, 0.8)
"""How much of it is believed, by experts."""
_BLOCK, _EARLY = 16, 64
"""Samples that are learned together, and before how many each is learned by itself."""
_SURE = 20
"""With fewer samples, the range of slowdowns seen bounds predictions half as tightly."""
_FELT_STEP = 0.02
"""A change of what is felt, in log slowdown, that responses are to tell before the next block is learned."""
_OFF_MAX = 0.4
"""How far off one batch is taken to be at most, in log slowdown: the first batches of a server take ten times as long
while others start beside it, and a model that is thought that slow is not launched, so that nothing corrects it."""
_BELOW, _ABOVE = 0.3, 0.5
"""How far beyond the slowdowns seen so far a prediction may go, in log slowdown."""

_COUNTS = tuple(map(str, range(33)))
"""Numbers of neighbours that are told apart: 0 to 31, and more."""
_array, _SINGLE, _pack = np.frombuffer, np.float32, Struct(f"={VECTOR}f").pack
"""Floats to an array by way of bytes, in a third of the time of `np.array`."""


class _Sample(NamedTuple):
    """One that waits to be learned. x: `inputs`; spell: before it."""

    own: Own
    seen: Exposure
    x: list[float]
    slowdown: float
    spell: float


class Isochrone:
    """Slowdown of a batch by a mixture of experts of constant size."""

    name: ClassVar[str] = "isochrone"

    def __init__(self) -> None:
        self._bank = StackedRls(*_priors(), [1.0, _FORGETTING, 1.0, 1.0])
        self._masks = np.ones((_REGRESSIONS, WIDTH))
        self._masks[_PAPER] = 0.0
        self._masks[_PAPER, list(PAPER)] = 1.0
        self._counts = KeyedMeans(64, 1e9)
        self._kernel = GaussianProcess()
        self._table = FusedLinearProduct(_REGRESSIONS + 1)
        self._first = Hedge(_EXPERTS)
        self._second = Hedge(6)
        self._third = Hedge(len(_FELT))
        self._models = KeyedMeans(256, 30.0)
        self._kinds = KeyedMeans(1024, 30.0)
        self._places = KeyedMeans(2048, 50.0)
        self._samples, self._lowest, self._highest = 0, 0.0, 0.0
        self._bound()
        self._spell = 0.0
        """Moving average of how far batches were off of late, in log slowdown."""
        self._waiting: list[_Sample] = []
        self._responses: dict[Own, SlowdownFunction] = {}
        """As of the last block, without any spell."""
        self.revision = 0
        self._gather()

    def predict_one(self, own: Own, seen: Exposure) -> float:
        check(own, seen)
        vector = _array(_pack(*inputs(own, seen), *self._kernel.who(own, seen)), _SINGLE)
        experts = self._experts(seen, *self._table.look_up(vector))
        mixed = self._second.mix(self._refined(own, seen, self._first.mix(experts)))
        return exp(self._within(mixed + self._trust * self._spell))

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        """Batches are learned in blocks: most calls only keep one for later."""
        check(own, seen, slowdown)
        x = inputs(own, seen)
        expected = self._within(sum(map(mul, self._fast, x)) + self._own_rest(own))
        off = log(clipped(slowdown)) - expected
        off = max(self._felt - _OFF_MAX, min(self._felt + _OFF_MAX, off))
        self._waiting.append(_Sample(own, seen, x, exp(expected + off), self._spell))
        self._spell += (off - self._spell) / _SPELL
        if abs(self._trust * self._spell - self._felt) > _FELT_STEP:
            self._feel()
        if len(self._waiting) >= (_BLOCK if self._samples >= _EARLY else 1):
            self._learn_waiting()

    def _learn_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        vectors = np.array([sample.x + self._kernel.who(sample.own, sample.seen) for sample in waiting])
        slowdowns = np.array([sample.slowdown for sample in waiting])
        truths = np.log(slowdowns)
        self._learn_mixture(waiting, vectors, truths)
        masked = self._masks[:, None, :] * vectors[:, :WIDTH]
        masked[_RATE] *= slowdowns[:, None]  # weighs by relative error: slowdown × (w·x) ≈ 1
        self._bank.learn(masked, np.stack([truths, truths, np.ones(len(waiting)), slowdowns]))
        self._gather()

    def _learn_mixture(self, waiting: list[_Sample], vectors: Vector, truths: Vector) -> None:
        """Each mixture judges what it would have predicted before any of these was known."""
        linear, rests = self._table.look_up_all(vectors)
        experts = [self._experts(s.seen, y, rest) for s, y, rest in zip(waiting, linear, rests, strict=True)]
        mixed = [self._first.mix(each) for each in experts]
        refined = [self._refined(s.own, s.seen, y) for s, y in zip(waiting, mixed, strict=True)]
        believed = [_believed(self._second.mix(each), s.spell) for s, each in zip(waiting, refined, strict=True)]
        self._third.learn(believed, truths)
        self._second.learn(refined, truths)
        self._first.learn(experts, truths)
        for sample, vector, y, truth in zip(waiting, vectors, mixed, truths.tolist(), strict=True):
            self._counts.learn("all", truth)
            self._counts.learn(_count(sample.seen), truth)
            self._remember(sample.own, sample.seen, y, truth)
            self._see(truth)
            self._kernel.learn(vector, truth)

    def _gather(self) -> None:
        """All linear weights in one matrix; what followed from the old ones is void."""
        fit = self._kernel.fit
        self._table.set(np.vstack([self._bank.weights, self._bank.weights[_STEADY] if fit is None else fit.weights]))
        a, b = self._first.weights[2:4]
        share = a / (a + b) if a + b > 0.0 else 0.5
        fast = share * self._bank.weights[_STEADY] + (1.0 - share) * self._bank.weights[_RECENT]
        self._fast: list[float] = fast.tolist()
        self._trust = sum(map(mul, self._third.weights, _FELT))
        self._responses.clear()
        self._feel()

    def _feel(self) -> None:
        """Slowdown functions are in the present spell from now on."""
        self._felt = self._trust * self._spell
        self.revision += 1

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        """The fast form for a batch, in the present spell."""
        known = self._responses.get(own)
        if known is None:
            known = self._responses[own] = slowdown_function(own, self._fast, self._own_rest(own))
        return known._replace(base=known.base + self._felt)

    def reset_drift(self) -> None:
        """Forget the spell that the machine is in: what is left is what batches do to each other."""
        self._spell = 0.0
        self._gather()

    def refit(self) -> Callable[[], FrozenFit] | None:
        """Work of some 0.1 s for another thread, if it is due; what it returns goes to `install`."""
        if not self._kernel.due:
            return None
        return self._kernel.refit(self._bank.weights[_STEADY])

    def install(self, fit: FrozenFit) -> None:
        self._kernel.install(fit)
        self._table.install(fit)
        self._gather()

    def _experts(self, seen: Exposure, linear: list[float], rest: float) -> list[float]:
        steady, recent, rate, paper, kernel = linear
        low, high = self._low, self._high
        rate = -log(rate) if rate > 0.0 else high
        paper = log(paper) if paper > 0.0 else low
        counted, mean = self._counts.get(_count(seen))
        found = [steady, recent, rate, paper, kernel + rest]
        within = [high if y > high else y if y > low else low for y in found]
        return [self._counts.get("all")[1], mean if counted else within[0], *within]

    def _within(self, y: float) -> float:
        """Not far beyond what was ever seen."""
        return self._high if y > self._high else y if y > self._low else self._low

    def _see(self, truth: float) -> None:
        self._samples += 1
        self._lowest, self._highest = min(self._lowest, truth), max(self._highest, truth)
        self._bound()

    def _bound(self) -> None:
        room = 1.0 if self._samples >= _SURE else 2.0
        self._low = max(LOG_MIN, self._lowest - room * _BELOW)
        self._high = min(LOG_MAX, self._highest + room * _ABOVE)

    def _own_rest(self, own: Own) -> float:
        return self._models.shrunk(own.model, 4.0) + self._kinds.shrunk(f"{own.model}:{own.batch_size}", 4.0)

    def _refined(self, own: Own, seen: Exposure, mixed: float) -> list[float]:
        model = mixed + self._models.shrunk(own.model, 4.0)
        kind = model + self._kinds.shrunk(f"{own.model}:{own.batch_size}", 4.0)
        weight, mean = self._places.get(str(seen.signature)) if seen.signature is not None else (0.0, 0.0)
        return [
            mixed,
            model,
            kind,
            (weight * mean + mixed) / (weight + 1.0),
            (weight * mean + 4.0 * mixed) / (weight + 4.0),
            (weight * mean + 2.0 * kind) / (weight + 2.0),
        ]

    def _remember(self, own: Own, seen: Exposure, mixed: float, truth: float) -> None:
        rest = truth - mixed
        model = self._models.shrunk(own.model, 4.0)
        self._models.learn(own.model, rest)
        self._kinds.learn(f"{own.model}:{own.batch_size}", rest - model)
        if seen.signature is not None:
            self._places.learn(str(seen.signature), truth)

    def _parts(self) -> dict[str, StackedRls | KeyedMeans | GaussianProcess | Hedge]:
        return {
            "bank": self._bank,
            "counts": self._counts,
            "kernel": self._kernel,
            "first": self._first,
            "second": self._second,
            "third": self._third,
            "models": self._models,
            "kinds": self._kinds,
            "places": self._places,
        }

    def state(self) -> State:
        self._learn_waiting()
        parts: State = {name: part.state() for name, part in self._parts().items()}
        return {**parts, "range": [self._samples, self._lowest, self._highest, self._spell]}

    def restore(self, state: State) -> None:
        fresh = Isochrone()
        for name, part in fresh._parts().items():
            part.restore(state.get(name))
        found = msgspec.convert(state.get("range"), tuple[int, float, float, float])
        fresh._samples, fresh._lowest, fresh._highest, fresh._spell = found
        fresh._bound()
        fresh._table.install(fresh._kernel.fit)
        fresh.revision = self.revision
        fresh._gather()
        self.__dict__.update(fresh.__dict__)


def _priors() -> tuple[Vector, Vector]:
    """(4, WIDTH) means and variances of the regressions' weights."""
    mean, variance = prior()
    paper = np.zeros(WIDTH)
    paper[list(PAPER)] = (1.0, 0.0, 0.0, 0.0, 0.3, 0.1, 0.3)
    return np.stack([mean, mean, rate_prior(), paper]), np.stack([variance, variance, variance, np.ones(WIDTH)])


def _believed(mixed: float, spell: float) -> list[float]:
    return [mixed + share * spell for share in _FELT]


def _count(seen: Exposure) -> str:
    n = seen.sums[0]
    return _COUNTS[round(n)] if 0.0 < n < len(_COUNTS) - 1 else _COUNTS[-1 if n > 0.0 else 0]
