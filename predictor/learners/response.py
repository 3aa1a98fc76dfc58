"""The log-linear form of slowdown and its fast evaluation while a timeline is forecast.

slowdown = exp(clip(a + c·g(S) + e·overdraft)): for a given batch, a, c and e follow from the weights once; S, the
neighbours' summed contributions, changes from step to step. No learning here.
"""

from __future__ import annotations

from math import exp, log, log2
from typing import NamedTuple

import numpy as np

from predictor.features import Exposure, Own, Shares, Sums, overdraft
from predictor.learners.contract import SLOWDOWN_MAX, SLOWDOWN_MIN
from predictor.learners.regression import Vector
from predictor.workload import Load

LOG_MIN, LOG_MAX = log(SLOWDOWN_MIN), log(SLOWDOWN_MAX)
_OWN, _LINEAR, _SATURATING = 6, 6, 4
_LOG = 0.1
"""Scale of logarithms beside shares."""
_HUGE = 64.0
"""What lies beyond is taken as this: no profile does."""

# The order of `inputs`: saturating terms, products, 1 and own, neighbours' sums, overdraft.
_PRODUCTS = _SATURATING
_FIRST = _PRODUCTS + 4 * 4
_SUMS = _FIRST + _OWN
_EXCESS = _SUMS + _LINEAR
WIDTH = _EXCESS + 3
PLAIN = _FIRST + 1
"""From here on: what is not made of the others, without the bias."""
PAPER = tuple(range(_FIRST, _FIRST + 4)) + tuple(range(_SUMS + 1, _SUMS + 4))
"""The paper's x: bias, own and neighbours' compute, l2, dram."""

Shared = tuple[float, float, float, float, float, float, float, float, float, float]


def shared(sums: Sums) -> Shared:
    """g(S): linear and saturating in what the neighbours use. The same for every batch beside the same neighbours."""
    n, c, l2, d, solo, size = sums
    if n > _HUGE or not 0.0 <= c + l2 + d <= _HUGE or not -_HUGE < solo < _HUGE or size > _HUGE:
        n, c, l2, d, solo, size = map(_bounded, sums)
    return (
        n, c, l2, d, _LOG * solo, _LOG * size,
        n / (0.5 + n), c / (0.5 + c), l2 / (0.5 + l2), d / (0.5 + d),
    )  # fmt: skip


def inputs(own: Own, seen: Exposure) -> list[float]:
    """(WIDTH,) see the order above."""
    o, g = _own(own), shared(seen.sums)
    _, c, l2, d, s, _ = o
    n, gc, gl, gd, solo, size, n_, c_, l_, d_ = g
    x, y, z = seen.overdraft
    if x + y + z > _HUGE:
        x, y, z = _bounded(x), _bounded(y), _bounded(z)
    return [
        n_, c_, l_, d_,
        c * n, c * gc, c * gl, c * gd,
        l2 * n, l2 * gc, l2 * gl, l2 * gd,
        d * n, d * gc, d * gl, d * gd,
        s * n, s * gc, s * gl, s * gd,
        *o, n, gc, gl, gd, solo, size, x, y, z,
    ]  # fmt: skip


class Response(NamedTuple):
    """One batch's slowdown as a function of its neighbours."""

    load: Load
    base: float
    shared: tuple[float, ...]
    overdraft: Shares

    def log_slowdown(self, g: Shared, excess: Shares) -> float:
        c, e = self.shared, self.overdraft
        y = self.base + (
            c[0] * g[0] + c[1] * g[1] + c[2] * g[2] + c[3] * g[3] + c[4] * g[4]
            + c[5] * g[5] + c[6] * g[6] + c[7] * g[7] + c[8] * g[8] + c[9] * g[9]
            + e[0] * excess[0] + e[1] * excess[1] + e[2] * excess[2]
        )  # fmt: skip
        return LOG_MAX if y > LOG_MAX else max(y, LOG_MIN)

    def slowdown(self, sums: Sums) -> float:
        """Beside neighbours with these summed contributions."""
        return exp(self.log_slowdown(shared(sums), overdraft(self.load, sums)))


def response(own: Own, weights: Vector, offset: float) -> Response:
    """`weights`: (WIDTH,) of log slowdown on `inputs`; offset: what is known of this batch besides."""
    w: list[float] = weights.tolist()
    o = _own(own)
    base = sum(a * b for a, b in zip(o, w[_FIRST:_SUMS], strict=True)) + offset
    coefficients = w[_SUMS:_EXCESS] + w[:_SATURATING]
    for i, factor in enumerate(o[1:5]):
        at = _PRODUCTS + 4 * i
        for k in range(4):
            coefficients[k] += factor * w[at + k]
    return Response(own.load, base, tuple(coefficients), (w[_EXCESS], w[_EXCESS + 1], w[_EXCESS + 2]))


def prior() -> tuple[Vector, Vector]:
    """Weights and their variances before any sample: alone a batch takes its solo time, neighbours cost."""
    mean, variance = np.zeros(WIDTH), np.ones(WIDTH)
    mean[:_SATURATING] = (0.1, 0.3, 0.1, 0.3)
    variance[_FIRST:_SUMS] = 0.3
    variance[_PRODUCTS:_FIRST] = 3.0
    return mean, variance


def rate_prior() -> Vector:
    """The same of 1 / slowdown."""
    mean = np.zeros(WIDTH)
    mean[_FIRST] = 1.0
    mean[:_SATURATING] = (-0.1, -0.1, -0.05, -0.1)
    return mean


def _own(own: Own) -> tuple[float, float, float, float, float, float]:
    solo_ns, c, l2, d = own.load.solo_ns, own.load.compute, own.load.l2, own.load.dram
    if not 0.0 <= c + l2 + d <= _HUGE:
        c, l2, d = _bounded(c), _bounded(l2), _bounded(d)
    return (1.0, c, l2, d, _LOG * log2(max(solo_ns, 1) / 1e6), _LOG * log2(max(own.batch_size, 1)))


def _bounded(value: float) -> float:
    """For sums of shares, which are not negative, and for logarithms."""
    return _HUGE if value > _HUGE else max(value, 0.0)
