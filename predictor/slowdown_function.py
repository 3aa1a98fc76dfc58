"""A batch's slowdown as a function of its co-runners, which a forecast evaluates at each of its steps.

One form for every learner. A running batch contributes its shares of the device and its pressure, which is what it does
to others, in the slot of its model; contributions add up. With S their sum over the co-runners and k others on its core

    slowdown = (base + gain · weights · S) · exp(overdraft · max(0, own + S − 1) + sharing · log(1 + k))

where the second factor is of the shares alone. All but S and k follow from the learner and the batch once; those two
change from step to step. No learning here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, log, log1p
from operator import mul
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictor.features import Exposure, Own, Shares
from predictor.workload import Load

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Tensor = NDArray[np.float64]

SHARES, SLOTS = 3, 16
WIDTH = SHARES + SLOTS
"""Length of a contribution: compute, l2, dram, and a pressure per slot."""
Sums = tuple[float, ...]
"""(WIDTH,) contributions, added up."""
ZERO_SUMS: Sums = (0.0,) * WIDTH
NO_SHARES: Shares = (0.0, 0.0, 0.0)

SLOWDOWN_MIN, SLOWDOWN_MAX = 0.1, 1_000.0
"""Bounds of every prediction."""
LOG_MAX = log(SLOWDOWN_MAX)


def shares_only(own: Own) -> Sums:
    """A batch's contribution to a learner that knows no pressures."""
    return own.load.features + ZERO_SUMS[SHARES:]


def sums_of(seen: Exposure, contribution: Callable[[Own], Sums]) -> Sums:
    """Time mean of the co-runners' contributions over a batch's execution."""
    sums = ZERO_SUMS
    for co_runner, overlap in seen.overlaps:
        sums = tuple([total + overlap * part for total, part in zip(sums, contribution(co_runner), strict=True)])
    return sums


class SlowdownFunction(NamedTuple):
    """One batch's. weights: (WIDTH,); room: own − 1, where a co-runner's shares exceed the device."""

    base: float
    gain: float = 1.0
    weights: Sums = ZERO_SUMS
    room: Shares = (-1.0, -1.0, -1.0)
    overdraft: Shares = NO_SHARES
    sharing: float = 0.0

    @property
    def solo(self) -> float:
        """Slowdown without any co-runner: no load alone exceeds the device."""
        return min(SLOWDOWN_MAX, max(SLOWDOWN_MIN, self.base))

    def slowdown(self, sums: Sequence[float], same_core: float = 0) -> float:
        """With co-runners whose contributions sum to this, `same_core` of them on its core."""
        y = self.base + self.gain * sum(map(mul, self.weights, sums))
        excess, (a, b, c) = 0.0, self.room
        if (x := a + sums[0]) > 0.0:
            excess += self.overdraft[0] * x
        if (x := b + sums[1]) > 0.0:
            excess += self.overdraft[1] * x
        if (x := c + sums[2]) > 0.0:
            excess += self.overdraft[2] * x
        if same_core:
            excess += self.sharing * log1p(same_core)
        if excess:
            y *= exp(excess if excess < LOG_MAX else LOG_MAX)
        return SLOWDOWN_MAX if y > SLOWDOWN_MAX else y if y > SLOWDOWN_MIN else SLOWDOWN_MIN

    def among(self, adds: Sums) -> SlowdownFunction:
        """The same of sums that include the batch's own contribution, `adds`."""
        base, gain, weights, (a, b, c), overdraft, sharing = self
        room = (a - adds[0], b - adds[1], c - adds[2])
        return SlowdownFunction(base - gain * sum(map(mul, weights, adds)), gain, weights, room, overdraft, sharing)

    def row(self) -> tuple[float, ...]:
        """(ROW,) for `SlowdownFunctions`."""
        gain = self.gain
        return (self.base, *[gain * weight for weight in self.weights], *self.room, *self.overdraft)


def room_of(load: Load) -> Shares:
    """`SlowdownFunction.room` of a batch with this load."""
    return (load.compute - 1.0, load.l2 - 1.0, load.dram - 1.0)


ROW = 1 + WIDTH + 2 * SHARES
"""Length of `SlowdownFunction.row`."""


class SlowdownFunctions:
    """The functions of batches that run together, in one or many cases at once.

    rows: (..., ROW, n), a column per batch, which is the order that numpy is fast in; read anew at each call.
    """

    def __init__(self, rows: Matrix) -> None:
        self._base = rows[..., 0, :]
        self._weights = rows[..., 1 : 1 + WIDTH, :]
        self._room = rows[..., 1 + WIDTH : 1 + WIDTH + SHARES, :]
        self._overdraft = rows[..., 1 + WIDTH + SHARES :, :]

    def slowdowns(self, sums: Vector, sharing: Matrix | None = None) -> Vector:
        """(..., n) at sums of (..., WIDTH). Not bounded below. sharing: (..., n), in the exponent."""
        excess = self._room + sums[..., :SHARES, None]
        np.maximum(excess, 0.0, out=excess)
        excess *= self._overdraft
        exponent: Vector = np.add.reduce(excess, -2)
        if sharing is not None:
            exponent += sharing
        np.minimum(exponent, LOG_MAX, out=exponent)
        y: Vector = (sums[..., None, :] @ self._weights)[..., 0, :]
        y += self._base
        y *= np.exp(exponent, out=exponent)
        return np.minimum(y, SLOWDOWN_MAX, out=y)
