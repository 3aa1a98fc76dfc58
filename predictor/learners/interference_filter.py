"""The equation that slowdowns are learned by, and the filter that learns it.

With φ a batch's features, x the shares wanted beyond the device, k others on the core, and a batch i beside co-runners
j for a part t_j of its time,

    log s_i = o_i + e·x + h·log(1 + k) + log(1 + Σ_j t_j · exp(α_i + β_j + δ_ij))
    α_i = a·(1, φ_i) + α_model + α_size       how sensitive it is
    β_j = b·φ_j + β_model + β_size            how demanding it is, its pressure
    δ_ij                                      what a pair of models, in this order, differs by
    o_i = o_model + o_size                    its own time beside what is known as its solo latency

Every batch is one step of an extended Kalman filter: a, b, e and h have a covariance in full, all others are taken as
independent, with a variance each and means of 0, so that they stay small until samples say otherwise.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import lru_cache
from math import exp, log, log1p, log2, sqrt
from operator import mul
from typing import NamedTuple

import msgspec
import numpy as np

from predictor.features import Exposure, Own, Shares
from predictor.learners.learner import State
from predictor.learners.normals import Key, Normals
from predictor.learners.regression import STATE_MAX, Vector, array_of
from predictor.slowdown_function import SHARES, SLOTS

_FEATURES = 6
_PRESSURE = 1 + _FEATURES
_OVERDRAFT = _PRESSURE + _FEATURES
_SHARING = _OVERDRAFT + SHARES
_WEIGHTS = _SHARING + 1
"""The order of the weights: a, b, e, h."""
_PRIOR = np.array([-2.2, *[0.0] * _FEATURES, 1.5, 0.5, 1.5, 0.0, 0.0, 0.0, *[0.0] * SHARES, 1.0])
_VARIANCE = np.array([*[1.0] * _OVERDRAFT, *[0.3] * SHARES, 0.1])
MODELS, _MODEL_SIZES = 256, 1024
"""At most so many are kept apart; the stalest goes."""
_OF_MODEL, _OF_SIZE, _OF_PAIR, _OF_OWN = 0.5, 0.05, 0.05, 0.001
"""Variances before any sample."""
_NOISE, _NOISE_MIN = 0.02, 1e-4
"""Variance of a batch's log slowdown, before any sample and at least."""
_NOISE_WEIGHT = 0.02
_VARIANCE_MAX, _ROUNDING = 1e4, 1e-6
"""Of a covariance in a state that is restored."""
_FORGETTING, _OWN_FORGETTING = 0.01, 0.001
"""By how much of the noise's variance what is believed grows uncertain with each batch that it matters to."""
_ERROR_MAX = 3.0
"""An error counts for at most so many standard deviations: a batch that was stopped for a while says little."""
_LOG_SHARE_MAX = 5.0
"""Bound of log(what one co-runner adds)."""
_LOG_MAX = 10.0
"""Bound of log sensitivities and pressures."""
_KERNEL_NS = 65_000
"""Usual mean time of a kernel."""
_LOG_WORK_MAX = 5.0
"""Bound of log(work per kernel), as a multiple of the usual one."""
_SHARE_MAX = 64.0
"""Bound of sums of shares: no device runs so much at once."""


_EXPECTED_SHARE = 0.1
"""Of the weights' variance, where they are not what batches are expected by."""

Expected = tuple[float, float, float, float]
"""Log sensitivity and log pressure of a batch, with their standard deviations."""


class _Step(NamedTuple):
    """Expected log slowdown of a batch, and its gradient by weight and by what is taken as independent."""

    expected: float
    by_weight: list[float]
    by_key: list[tuple[Normals, dict[Key, float], float]]
    """With a factor of all slopes."""


class Correction(NamedTuple):
    """Outcome of a step. error: of log slowdown, bounded, had there been no drift; moved: by how much less that
    would be off now.
    """

    error: float
    moved: float


class InterferenceFilter:
    """All that is learned of models, sizes and pairs, bounded in size."""

    def __init__(self) -> None:
        self._weights: list[float] = _PRIOR.tolist()
        self._covariance: Vector = np.diag(_VARIANCE)
        self._sensitivity, self._size_sensitivity = _of_models(_OF_MODEL), _of_sizes(_OF_SIZE)
        self._pressure, self._size_pressure = _of_models(_OF_MODEL), _of_sizes(_OF_SIZE)
        self._own = Normals(MODELS, _OF_OWN, _OWN_FORGETTING)
        self._size_own = Normals(_MODEL_SIZES, _OF_OWN, _OWN_FORGETTING)
        self._pairs = Normals(MODELS * SLOTS, _OF_PAIR, _FORGETTING)
        self._noise = _NOISE

    @property
    def noise_sd(self) -> float:
        """Standard deviation of a batch's log slowdown from what is expected of it."""
        return sqrt(self._noise)

    @property
    def overdraft(self) -> Shares:
        """e."""
        compute, l2, dram = self._weights[_OVERDRAFT:_SHARING]
        return (compute, l2, dram)

    @property
    def sharing(self) -> float:
        """h."""
        return self._weights[_SHARING]

    def log_pair(self, model: str, other: str) -> float:
        """δ."""
        return self._pairs.mean((model, other))

    def log_sensitivity(self, own: Own) -> float:
        """α."""
        w, (compute, l2, dram, solo, size, work) = self._weights, _features(own)
        by_features = w[0] + w[1] * compute + w[2] * l2 + w[3] * dram + w[4] * solo + w[5] * size + w[6] * work
        known = self._sensitivity.mean((own.model,)) + self._size_sensitivity.mean((own.model, own.batch_size))
        return _within(by_features + known, _LOG_MAX)

    def log_pressure(self, own: Own) -> float:
        """β."""
        w, (compute, l2, dram, solo, size, work) = self._weights, _features(own)
        by_features = w[7] * compute + w[8] * l2 + w[9] * dram + w[10] * solo + w[11] * size + w[12] * work
        known = self._pressure.mean((own.model,)) + self._size_pressure.mean((own.model, own.batch_size))
        return _within(by_features + known, _LOG_MAX)

    def own_time(self, own: Own) -> float:
        """o."""
        return self._own.mean((own.model,)) + self._size_own.mean((own.model, own.batch_size))

    def expect(self, known: Mapping[Own, Expected]) -> None:
        """Begin from numbers that are known beforehand, in place of what features suggest: before any sample.

        The least variance of a sensitivity is taken for what all have in common, which the first weight learns.
        """
        if not known:
            return
        common = min(numbers[2] ** 2 for numbers in known.values())
        scale = np.full(_WEIGHTS, sqrt(_EXPECTED_SHARE))
        scale[0] = min(1.0, sqrt(common))
        self._covariance *= np.outer(scale, scale)
        parts = (
            (self._sensitivity, self._size_sensitivity, self.log_sensitivity, 0),
            (self._pressure, self._size_pressure, self.log_pressure, 1),
        )
        for of_models, of_sizes, expected, at in parts:
            found: dict[str, list[tuple[int, float, float]]] = {}
            for own, numbers in known.items():
                difference = numbers[at] - expected(own)
                variance = numbers[2 + at] ** 2 - (0.0 if at else common)
                found.setdefault(own.model, []).append((own.batch_size, difference, variance))
            for model, sizes in found.items():
                middle = sum([difference for _, difference, _ in sizes]) / len(sizes)
                of_models.expect((model,), middle, sum([variance for *_, variance in sizes]) / len(sizes))
                for size, difference, variance in sizes:
                    of_sizes.expect((model, size), difference - middle, variance)

    def learn_one(
        self, own: Own, seen: Exposure, log_slowdown: float, drift: float, told_apart: Container[str]
    ) -> Correction:
        """One step. drift: of log slowdown, as expected; told_apart: models that may have a δ as co-runners."""
        step = self._step(own, seen, told_apart)
        return self._update(step, log_slowdown - step.expected, drift)

    def _step(self, own: Own, seen: Exposure, told_apart: Container[str]) -> _Step:
        """The equation at the top, and its gradient."""
        sensitivity, model, weights = self.log_sensitivity(own), own.model, self._weights
        b_compute, b_l2, b_dram, b_solo, b_size, b_work = weights[_PRESSURE:_OVERDRAFT]
        total, by_size, by_model = 0.0, dict[Key, float](), dict[str, float]()
        compute = l2 = dram = solo = size = work = 0.0
        for co_runner, overlap in seen.overlaps:
            other, rows, _ = co_runner
            a, b, c, d, e, f = _features(co_runner)
            log_share = sensitivity + b_compute * a + b_l2 * b + b_dram * c + b_solo * d + b_size * e + b_work * f
            log_share += self._pressure.mean((other,)) + self._size_pressure.mean((other, rows))
            if other in told_apart:
                log_share += self._pairs.mean((model, other))
            share = overlap * exp(log_share if log_share < _LOG_SHARE_MAX else _LOG_SHARE_MAX)
            total += share
            compute, l2, dram = compute + share * a, l2 + share * b, dram + share * c
            solo, size, work = solo + share * d, size + share * e, work + share * f
            by_model[other] = by_model.get(other, 0.0) + share
            by_size[other, rows] = by_size.get((other, rows), 0.0) + share
        scale = 1.0 / (1.0 + total)
        excess = [min(_SHARE_MAX, max(0.0, share)) for share in seen.overdraft]
        exponent = sum(map(mul, weights[_OVERDRAFT:], (*excess, seen.sharing)))
        in_sum = (total, *[total * value for value in _features(own)], compute, l2, dram, solo, size, work)
        by_weight = [*[scale * value for value in in_sum], *excess, seen.sharing]
        by_key: list[tuple[Normals, dict[Key, float], float]] = [
            (self._own, {(model,): 1.0}, 1.0),
            (self._size_own, {(model, own.batch_size): 1.0}, 1.0),
            (self._sensitivity, {(model,): total}, scale),
            (self._size_sensitivity, {(model, own.batch_size): total}, scale),
            (self._pressure, {(other,): share for other, share in by_model.items()}, scale),
            (self._size_pressure, by_size, scale),
            (self._pairs, {(model, other): share for other, share in by_model.items() if other in told_apart}, scale),
        ]
        return _Step(self.own_time(own) + exponent + log1p(total), by_weight, by_key)

    def _update(self, step: _Step, raw_error: float, drift: float) -> Correction:
        """The filter's step: with gradient g, covariance P and noise R, means move by P g · error / (gᵀ P g + R), and
        P ← P − P g gᵀ P / (gᵀ P g + R).
        """
        g, noise = np.array(step.by_weight), self._noise
        gain = self._covariance @ g
        spread = float(g @ gain) + sum([normals.spread(slopes, scale, noise) for normals, slopes, scale in step.by_key])
        total = max(0.0, spread) + noise
        most = _ERROR_MAX * sqrt(total)
        error = _within(raw_error - drift, most)
        self._noise = max(_NOISE_MIN, noise + _NOISE_WEIGHT * (max(0.0, error * error - spread) - noise))
        self._weights = (self._weights + gain * (error / total)).tolist()
        self._covariance -= gain[:, None] * (gain / total)  # symmetric to the last bit
        for normals, slopes, scale in step.by_key:
            normals.learn(slopes, scale, noise, error, total)
        return Correction(_within(raw_error, most), abs(spread * error / total))

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
        return {
            "weights": list(self._weights),
            "covariance": self._covariance.tolist(),
            **{name: normals.state() for name, normals in self._normals().items()},
            "noise": self._noise,
        }

    def restore(self, state: State) -> None:
        """Become what `state()` described. Raises ValueError on anything else, and is of no use then."""
        self._weights = array_of(state.get("weights"), (_WEIGHTS,), STATE_MAX).tolist()
        self._covariance = array_of(state.get("covariance"), (_WEIGHTS, _WEIGHTS), _VARIANCE_MAX)
        if np.linalg.eigvalsh(self._covariance)[0] < -_ROUNDING or not _is_symmetric(self._covariance):
            raise ValueError("a covariance is symmetric, and no variance in it below 0")
        for name, normals in self._normals().items():
            normals.restore(state.get(name))
        self._noise = msgspec.convert(state.get("noise"), float)
        if not _NOISE_MIN <= self._noise <= _VARIANCE_MAX:
            raise ValueError(f"a variance from {_NOISE_MIN} to {_VARIANCE_MAX:g} is expected, got {self._noise}")


def _is_symmetric(matrix: Vector) -> bool:
    """True within what rounding leaves."""
    return bool((np.abs(matrix - matrix.T) <= _ROUNDING).all())


def _of_models(variance: float) -> Normals:
    return Normals(MODELS, variance, _FORGETTING)


def _of_sizes(variance: float) -> Normals:
    return Normals(_MODEL_SIZES, variance, _FORGETTING)


@lru_cache(4096)
def _features(own: Own) -> tuple[float, float, float, float, float, float]:
    """φ: shares, and logarithms of the order of shares; that of the work per kernel is 0 where nobody has told it."""
    load = own.load
    compute, l2, dram = (min(_SHARE_MAX, max(0.0, share)) for share in load.features)
    work = _within(log(load.kernel_ns / _KERNEL_NS), _LOG_WORK_MAX) if load.kernel_ns > 0 else 0.0
    return (compute, l2, dram, 0.1 * log2(max(load.solo_ns, 1) / 1e6), 0.1 * log2(max(own.batch_size, 1)), work)


def _within(value: float, most: float) -> float:
    return most if value > most else value if value > -most else -most
