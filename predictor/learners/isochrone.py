"""This project's learner as it serves: what models do to each other, by their features at first, then by who they are.

With φ a batch's features, x the shares wanted beyond the device, and i beside co-runners j for a part t_j of its time,

    log s_i = o_i + e·x + h·log(1 + k) + log(1 + Σ_j t_j · exp(α_i + β_j + δ_ij))
    α_i = a·(1, φ_i) + α_model + α_size       how sensitive it is
    β_j = b·φ_j + β_model + β_size            how demanding it is, its pressure
    δ_ij                                      what a pair of models, in this order, differs by
    o_i = o_model + o_size                    its own time beside what is known as its solo latency

The sum is additive over co-runners: `slowdown_function` has it as weights on their summed contributions, and launches
are decided by that. Every batch is one step of an extended Kalman filter: a, b, e and h have a covariance in full, all
others are taken as independent (a variance each), with means of 0, so that they stay small until samples say otherwise.
"""

from __future__ import annotations

from functools import lru_cache
from math import exp, expm1, inf, log, log1p, log2, sqrt
from operator import mul
from typing import ClassVar, NamedTuple

import msgspec
import numpy as np

from predictor.features import Exposure, Own, check
from predictor.learners.drift import Drift
from predictor.learners.learner import State, clipped
from predictor.learners.normals import Key, Normals
from predictor.learners.regression import Vector, array_of
from predictor.learners.slots import Slots
from predictor.slowdown_function import SHARES, SLOTS, ZERO_SUMS, SlowdownFunction, Sums, room_of

_FEATURES = 5
_PRESSURE = 1 + _FEATURES
_OVERDRAFT = _PRESSURE + _FEATURES
_SHARING = _OVERDRAFT + SHARES
_WEIGHTS = _SHARING + 1
"""The order of the weights: a, b, e, h."""
_PRIOR = np.array([-2.2, *[0.0] * _FEATURES, 1.5, 0.5, 1.5, 0.0, 0.0, *[0.0] * SHARES, 1.0])
_VARIANCE = np.array([*[1.0] * _OVERDRAFT, *[0.3] * SHARES, 0.1])
_MODELS, _MODEL_SIZES = 256, 1024
"""At most so many are kept apart; the stalest goes."""
_OF_MODEL, _OF_SIZE, _OF_PAIR, _OF_OWN = 0.5, 0.05, 0.05, 0.001
"""Variances before any sample."""
_NOISE, _NOISE_MIN = 0.02, 1e-4
"""Variance of a batch's log slowdown, before any sample and at least."""
_NOISE_WEIGHT = 0.02
_FORGETTING, _OWN_FORGETTING = 0.01, 0.001
"""By how much of the noise's variance what is believed grows uncertain with each batch that it matters to."""
_ERROR_MAX = 3.0
"""An error counts for at most so many standard deviations: a batch that was stopped for a while says little."""
_LOG_SHARE_MAX = 5.0
"""Bound of log(what one co-runner adds)."""
_LOG_MAX = 10.0
"""Bound of log sensitivities and pressures."""
_BLOCK, _EARLY, _MOVED, _MOVED_SD = 16, 64, 0.02, 0.5
"""Forecasts follow after so many batches; at once after each of the first ones, or where what was learned moves log
slowdown by so much, and by so many standard deviations of the noise."""
_SHARE_MAX = 64.0
"""Bound of sums of shares: no device runs so much at once."""


class _Step(NamedTuple):
    """Expected log slowdown of a batch, and its gradient by weight and by what is taken as independent."""

    expected: float
    by_weight: list[float]
    by_key: list[tuple[Normals, dict[Key, float]]]


class Isochrone:
    """Slowdown of a batch by its co-runners, state bounded in size."""

    name: ClassVar[str] = "isochrone"

    def __init__(self) -> None:
        self._weights: list[float] = _PRIOR.tolist()
        self._covariance: Vector = np.diag(_VARIANCE)
        self._sensitivity, self._size_sensitivity = (
            Normals(_MODELS, _OF_MODEL, _FORGETTING),
            Normals(_MODEL_SIZES, _OF_SIZE, _FORGETTING),
        )
        self._pressure, self._size_pressure = (
            Normals(_MODELS, _OF_MODEL, _FORGETTING),
            Normals(_MODEL_SIZES, _OF_SIZE, _FORGETTING),
        )
        self._own, self._size_own = (
            Normals(_MODELS, _OF_OWN, _OWN_FORGETTING),
            Normals(_MODEL_SIZES, _OF_OWN, _OWN_FORGETTING),
        )
        self._pairs = Normals(_MODELS * SLOTS, _OF_PAIR, _FORGETTING)
        self._slots = Slots()
        self._noise = _NOISE
        self._drift = Drift()
        self._samples, self._published, self._moved = 0, 0, 0.0
        self._offset = 0.0
        """The drift's, as published."""
        self._functions: dict[Own, SlowdownFunction] = {}
        self._pressures: dict[Own, tuple[int, float]] = {}
        self._pair_weights: dict[str, Sums] = {}
        """exp(δ) by the co-runner's slot, of a model."""
        self._learned: set[tuple[str, str]] = set()
        """Pairs that were learned from since forecasts followed."""
        self.revision = -1
        self._publish()

    # What launches are decided by

    def predict_one(self, own: Own, seen: Exposure) -> float:
        """By the form that launches are decided by."""
        check(own, seen)
        sums = [*seen.sums[1 : 1 + SHARES], *ZERO_SUMS[SHARES:]]
        for co_runner, overlap in seen.overlaps:
            slot, pressure = self._pressure_of(co_runner)
            sums[SHARES + slot] += overlap * pressure
        return self.slowdown_function(own).slowdown(sums, expm1(seen.sharing) if seen.sharing else 0.0)

    def contribution(self, own: Own) -> Sums:
        """Its shares, and its pressure in its model's slot."""
        slot, pressure = self._pressure_of(own)
        return (*own.load.features, *ZERO_SUMS[:slot], pressure, *ZERO_SUMS[SHARES + slot + 1 :])

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        """exp(o + drift) · (1 + exp(α) Σ_slot exp(δ_slot) · its pressure), and the terms in the exponent."""
        known = self._functions.get(own)
        if known is None:
            base = exp(self._own_time(own) + self._offset)
            gain, weights = base * exp(self._log_sensitivity(own)), self._weights_of(own.model)
            room, sharing = room_of(own.load), self._weights[_SHARING]
            known = SlowdownFunction(base, gain, weights, room, self._overdraft, sharing)
            self._functions[own] = known
        return known

    def _pressure_of(self, own: Own) -> tuple[int, float]:
        """Its model's slot, and exp(β)."""
        known = self._pressures.get(own)
        if known is None:
            known = self._pressures[own] = (self._slots.of(own.model), exp(self._log_pressure(own)))
        return known

    def _weights_of(self, model: str) -> Sums:
        """exp(δ) by slot; slot 0 is of all models that have none of their own."""
        known = self._pair_weights.get(model)
        if known is None:
            weights = [0.0] * SHARES + [1.0] * SLOTS
            for other, slot in self._slots:
                weights[SHARES + slot] = exp(self._pairs.mean((model, other)))
            known = self._pair_weights[model] = tuple(weights)
        return known

    # Learning

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        """One step of the filter; forecasts follow it sooner or later."""
        check(own, seen, slowdown)
        self._samples += 1
        for co_runner, _ in seen.overlaps:
            self._learned.add((own.model, co_runner.model))
            if self._slots.take(co_runner.model, self._samples):
                self._moved = inf
                self._pair_weights.clear()
        step = self._step(own, seen)
        error = log(clipped(slowdown)) - step.expected
        self._update(step, error)
        due = self._samples - self._published >= (_BLOCK if self._samples > _EARLY else 1)
        moved = max(self._moved, abs(self._drift.offset - self._offset))
        if due or moved > max(_MOVED, _MOVED_SD * sqrt(self._noise)):
            self._publish()

    def reset_drift(self) -> None:
        """Forget the drift that the machine is in: what is left is what batches do to each other."""
        self._drift.reset()
        self._publish()

    def _step(self, own: Own, seen: Exposure) -> _Step:
        """The equation at the top, and its gradient."""
        sensitivity, model, slots = self._log_sensitivity(own), own.model, self._slots
        total, by_size, by_pair = 0.0, dict[Key, float](), dict[Key, float]()
        compute = l2 = dram = solo = size = 0.0
        for co_runner, overlap in seen.overlaps:
            other, rows, _ = co_runner
            log_share = sensitivity + self._log_pressure(co_runner)
            pair = (model, other)
            if other in slots:
                log_share += self._pairs.mean(pair)
            share = overlap * exp(log_share if log_share < _LOG_SHARE_MAX else _LOG_SHARE_MAX)
            total += share
            a, b, c, d, e = _features(co_runner)
            compute, l2, dram = compute + share * a, l2 + share * b, dram + share * c
            solo, size = solo + share * d, size + share * e
            by_pair[pair] = by_pair.get(pair, 0.0) + share
            by_size[other, rows] = by_size.get((other, rows), 0.0) + share
        scale = 1.0 / (1.0 + total)
        by_size = {key: scale * share for key, share in by_size.items()}
        by_pair = {key: scale * share for key, share in by_pair.items()}
        by_model: dict[Key, float] = {(other,): slope for (_, other), slope in by_pair.items()}
        if any(other not in slots for _, other in by_pair):
            by_pair = {key: slope for key, slope in by_pair.items() if key[1] in slots}
        excess = [min(_SHARE_MAX, max(0.0, share)) for share in seen.overdraft]
        exponent = sum(map(mul, self._weights[_OVERDRAFT:], (*excess, seen.sharing)))
        in_sum = (total, *[total * value for value in _features(own)], compute, l2, dram, solo, size)
        by_weight = [*[scale * value for value in in_sum], *excess, seen.sharing]
        of_model, of_size = (model,), (model, own.batch_size)
        by_key: list[tuple[Normals, dict[Key, float]]] = [
            (self._own, {of_model: 1.0}),
            (self._size_own, {of_size: 1.0}),
            (self._sensitivity, {of_model: scale * total}),
            (self._size_sensitivity, {of_size: scale * total}),
            (self._pressure, by_model),
            (self._size_pressure, by_size),
            (self._pairs, by_pair),
        ]
        return _Step(self._own_time(own) + exponent + log1p(total), by_weight, by_key)

    def _update(self, step: _Step, raw_error: float) -> None:
        """The filter's step: with gradient g, covariance P and noise R, means move by P g · error / (gᵀ P g + R), and
        P ← P − P g gᵀ P / (gᵀ P g + R).
        """
        g, noise = np.array(step.by_weight), self._noise
        gain = self._covariance @ g
        spread = float(g @ gain) + sum([normals.spread(slopes, noise) for normals, slopes in step.by_key])
        total = spread + noise
        most = _ERROR_MAX * sqrt(total)
        error = _within(raw_error - self._drift.offset, most)
        self._drift.learn_one(_within(raw_error, most))
        self._noise = max(_NOISE_MIN, noise + _NOISE_WEIGHT * (max(0.0, error * error - spread) - noise))
        self._weights = (self._weights + gain * (error / total)).tolist()
        self._covariance -= gain[:, None] * (gain / total)  # symmetric to the last bit
        for normals, slopes in step.by_key:
            normals.learn(slopes, noise, error, total)
        self._moved += abs(spread * error / total)

    def _publish(self) -> None:
        """Forecasts follow what was learned; what followed from what was known before is void."""
        self._published, self._moved, self._offset = self._samples, 0.0, self._drift.offset
        self._functions.clear()
        self._pressures.clear()
        self._renew_pair_weights()
        e = self._weights[_OVERDRAFT:_SHARING]
        self._overdraft = (e[0], e[1], e[2])
        self.revision += 1

    def _renew_pair_weights(self) -> None:
        """Follow the pairs that were learned; slowdown functions that were handed out keep their weights."""
        for model, other in self._learned:
            weights = self._pair_weights.get(model)
            if weights is not None and other in self._slots:
                at = SHARES + self._slots.of(other)
                self._pair_weights[model] = (*weights[:at], exp(self._pairs.mean((model, other))), *weights[at + 1 :])
        self._learned.clear()
        if len(self._pair_weights) > _MODELS:
            self._pair_weights.clear()

    def _log_sensitivity(self, own: Own) -> float:
        w, (compute, l2, dram, solo, size) = self._weights, _features(own)
        by_features = w[0] + w[1] * compute + w[2] * l2 + w[3] * dram + w[4] * solo + w[5] * size
        known = self._sensitivity.mean((own.model,)) + self._size_sensitivity.mean((own.model, own.batch_size))
        return _within(by_features + known, _LOG_MAX)

    def _log_pressure(self, own: Own) -> float:
        w, (compute, l2, dram, solo, size) = self._weights, _features(own)
        by_features = w[6] * compute + w[7] * l2 + w[8] * dram + w[9] * solo + w[10] * size
        known = self._pressure.mean((own.model,)) + self._size_pressure.mean((own.model, own.batch_size))
        return _within(by_features + known, _LOG_MAX)

    def _own_time(self, own: Own) -> float:
        return self._own.mean((own.model,)) + self._size_own.mean((own.model, own.batch_size))

    def _normals(self) -> dict[str, Normals]:
        """By their names in the state."""
        return {
            "sensitivity": self._sensitivity,
            "size_sensitivity": self._size_sensitivity,
            "pressure": self._pressure,
            "size_pressure": self._size_pressure,
            "own": self._own,
            "size_own": self._size_own,
            "pairs": self._pairs,
        }

    def state(self) -> State:
        self._publish()
        return {
            "weights": list(self._weights),
            "covariance": self._covariance.tolist(),
            **{name: normals.state() for name, normals in self._normals().items()},
            "slots": self._slots.state(),
            "drift": self._drift.state(),
            "noise": [self._samples, self._noise],
        }

    def restore(self, state: State) -> None:
        """Become what `state()` described. Raises ValueError, unchanged, on anything else."""
        fresh = Isochrone()
        fresh._weights = array_of(state.get("weights"), (_WEIGHTS,)).tolist()
        fresh._covariance = array_of(state.get("covariance"), (_WEIGHTS, _WEIGHTS))
        for name, normals in fresh._normals().items():
            normals.restore(state.get(name))
        fresh._slots.restore(state.get("slots"))
        fresh._drift.restore(state.get("drift"))
        fresh._samples, fresh._noise = msgspec.convert(state.get("noise"), tuple[int, float])
        if not _NOISE_MIN <= fresh._noise < inf:
            raise ValueError(f"a variance of at least {_NOISE_MIN} is expected, got {fresh._noise}")
        fresh.revision = self.revision
        fresh._publish()
        self.__dict__.update(fresh.__dict__)


@lru_cache(4096)
def _features(own: Own) -> tuple[float, float, float, float, float]:
    """φ: shares, and logarithms of the order of shares."""
    compute, l2, dram = (min(_SHARE_MAX, max(0.0, share)) for share in own.load.features)
    return (compute, l2, dram, 0.1 * log2(max(own.load.solo_ns, 1) / 1e6), 0.1 * log2(max(own.batch_size, 1)))


def _within(value: float, most: float) -> float:
    return most if value > most else value if value > -most else -most
