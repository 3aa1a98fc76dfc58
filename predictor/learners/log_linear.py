"""The linear experts' inputs, their prior, and the `SlowdownFunction` that follows from weights."""

from __future__ import annotations

from functools import lru_cache
from math import log2

import numpy as np

from predictor.features import Exposure, Own
from predictor.learners.regression import Vector
from predictor.slowdown_function import HUGE, LOG_SCALE, SlowdownFunction, bounded, shared

_OWN, _LINEAR, _SATURATING = 6, 6, 4

# The order of `inputs`: saturating terms, products, 1 and own, co-runners' sums, overdraft, core sharing.
_PRODUCTS = _SATURATING
_FIRST = _PRODUCTS + 4 * 4
_SUMS = _FIRST + _OWN
_EXCESS = _SUMS + _LINEAR
_SHARING = _EXCESS + 3
WIDTH = _SHARING + 1
PLAIN = _FIRST + 1
"""Begin of the terms that are no products or functions of others, without the bias."""
PAPER = tuple(range(_FIRST, _FIRST + 4)) + tuple(range(_SUMS + 1, _SUMS + 4))
"""The paper's x: bias, own and co-runners' compute, l2, dram."""


def inputs(own: Own, seen: Exposure) -> list[float]:
    """(WIDTH,) see the order above."""
    o, g = _own(own), shared(seen.sums)
    _, c, l2, d, s, _ = o
    n, gc, gl, gd, solo, size, n_, c_, l_, d_ = g
    x, y, z = seen.overdraft
    if x + y + z > HUGE:
        x, y, z = bounded(x), bounded(y), bounded(z)
    return [
        n_, c_, l_, d_,
        c * n, c * gc, c * gl, c * gd,
        l2 * n, l2 * gc, l2 * gl, l2 * gd,
        d * n, d * gc, d * gl, d * gd,
        s * n, s * gc, s * gl, s * gd,
        *o, n, gc, gl, gd, solo, size, x, y, z, seen.sharing,
    ]  # fmt: skip


def slowdown_function(own: Own, weights: list[float], offset: float) -> SlowdownFunction:
    """weights: WIDTH of log slowdown on `inputs`; offset: added to log slowdown."""
    o = _own(own)
    w = weights
    base = offset
    for at, value in enumerate(o, _FIRST):
        base += value * w[at]
    _, a, b, c, d, _ = o
    crossed = [
        w[_SUMS + k] + a * w[at] + b * w[at + 4] + c * w[at + 8] + d * w[at + 12]
        for k, at in enumerate(range(_PRODUCTS, _PRODUCTS + 4))
    ]
    coefficients = (*crossed, w[_SUMS + 4], w[_SUMS + 5], *w[:_SATURATING])
    overdraft = (w[_EXCESS], w[_EXCESS + 1], w[_EXCESS + 2])
    return SlowdownFunction(own.load, base, coefficients, overdraft, sharing=w[_SHARING])


def prior() -> tuple[Vector, Vector]:
    """Weights and their variances before any sample: solo a batch takes its solo time; co-runners cost."""
    mean, variance = np.zeros(WIDTH), np.full(WIDTH, 0.1)
    mean[:_SATURATING] = (0.1, 0.3, 0.1, 0.3)
    mean[_SHARING] = 1.0
    variance[_PRODUCTS:_SUMS] = 0.3
    return mean, variance


def rate_prior() -> Vector:
    """Weights of 1 / slowdown before any sample."""
    mean = np.zeros(WIDTH)
    mean[_FIRST] = 1.0
    mean[:_SATURATING] = (-0.1, -0.1, -0.05, -0.1)
    mean[_SHARING] = -0.5
    return mean


@lru_cache(4096)
def _own(own: Own) -> tuple[float, float, float, float, float, float]:
    solo_ns, c, l2, d = own.load.solo_ns, own.load.compute, own.load.l2, own.load.dram
    if not 0.0 <= c + l2 + d <= HUGE:
        c, l2, d = bounded(c), bounded(l2), bounded(d)
    return (1.0, c, l2, d, LOG_SCALE * log2(max(solo_ns, 1) / 1e6), LOG_SCALE * log2(max(own.batch_size, 1)))
