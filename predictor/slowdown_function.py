"""A batch's slowdown as a function of its co-runners, which a forecast evaluates at each of its steps.

One form for every learner, linear or log-linear in g(S) and in the overdraft, where S are the co-runners' summed
contributions: y = base + c·g(S) + e·max(0, own + S − 1) + h·log(1 + k) for k others on its core, and the slowdown is y
or exp(y). Base, c, e and h follow from the learner's weights and the batch once; S and k change from step to step. No
learning here.
"""

from __future__ import annotations

from math import exp, log
from operator import mul
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictor.features import WIDTH, Shares, Sums
from predictor.workload import Load

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Tensor = NDArray[np.float64]

SLOWDOWN_MIN, SLOWDOWN_MAX = 0.1, 1_000.0
"""Bounds of every prediction."""
LOG_MIN, LOG_MAX = log(SLOWDOWN_MIN), log(SLOWDOWN_MAX)
LOG_SCALE = 0.1
"""Factor of logarithms, so that they are of the order of shares."""
HUGE = 64.0
"""Bound of sums of shares: no device runs so much at once."""
HUGE_LOG = 1024.0
"""Bound of summed logarithms."""
HALF = 0.5
"""Argument at which a saturating term reaches half of its limit."""

Shared = tuple[float, float, float, float, float, float, float, float, float, float]
_USED = np.array([0, 1, 2, 3, 1, 2, 3])
"""Indexes into a contribution: of the saturating terms, then of the overdraft's."""


def shared(sums: Sums) -> Shared:
    """g(S): linear and saturating terms of the co-runners' use, the same for every batch with the same co-runners."""
    n, c, l2, d, solo, size = sums
    if n > HUGE or not 0.0 <= c + l2 + d <= HUGE or not -HUGE_LOG < solo < HUGE_LOG or size > HUGE_LOG:
        n, c, l2, d, solo, size = map(bounded, sums)
    return (
        n, c, l2, d, LOG_SCALE * solo, LOG_SCALE * size,
        n / (HALF + n), c / (HALF + c), l2 / (HALF + l2), d / (HALF + d),
    )  # fmt: skip


def bounded(value: float) -> float:
    """For sums of shares, which are not negative, and for logarithms."""
    return HUGE if value > HUGE else max(value, 0.0)


class SlowdownFunction(NamedTuple):
    """One batch's. shared: c, ordered as `shared`; overdraft: e; logarithmic: the slowdown is exp(y); sharing: h."""

    load: Load
    base: float
    shared: tuple[float, ...]
    overdraft: Shares = (0.0, 0.0, 0.0)
    logarithmic: bool = True
    sharing: float = 0.0

    def row(self, adds: Sums) -> tuple[float, ...]:
        """(ROW,) for `SlowdownFunctions`, of a batch that itself contributes `adds`."""
        c, load = self.shared, self.load
        linear = (c[0], c[1], c[2], c[3], LOG_SCALE * c[4], LOG_SCALE * c[5])
        rest = self.base - sum(map(mul, linear, adds))
        n, compute, l2, dram, _, _ = adds
        room = (load.compute - compute - 1.0, load.l2 - l2 - 1.0, load.dram - dram - 1.0)
        return (float(self.logarithmic), rest, *linear, -n, -compute, -l2, -dram, *room, *c[6:], *self.overdraft)

    def slowdown(self, sums: Sums, same_core: float = 0) -> float:
        """With co-runners whose contributions sum to this, `same_core` of them on its core."""
        return self.slowdown_at(shared(sums), sums, same_core)

    def slowdown_at(self, g: Shared, sums: Sums, same_core: float = 0) -> float:
        """The same with g(S) given, where many batches are looked at with the same co-runners."""
        c, e, load = self.shared, self.overdraft, self.load
        y = self.base + (
            c[0] * g[0] + c[1] * g[1] + c[2] * g[2] + c[3] * g[3] + c[4] * g[4]
            + c[5] * g[5] + c[6] * g[6] + c[7] * g[7] + c[8] * g[8] + c[9] * g[9]
        )  # fmt: skip
        if (x := load.compute + sums[1] - 1.0) > 0.0:
            y += e[0] * x
        if (x := load.l2 + sums[2] - 1.0) > 0.0:
            y += e[1] * x
        if (x := load.dram + sums[3] - 1.0) > 0.0:
            y += e[2] * x
        if same_core:
            y += self.sharing * log(1.0 + same_core)
        if self.logarithmic:
            return exp(LOG_MAX if y > LOG_MAX else y if y > LOG_MIN else LOG_MIN)
        return SLOWDOWN_MAX if y > SLOWDOWN_MAX else y if y > SLOWDOWN_MIN else SLOWDOWN_MIN


_TERMS = 4 + 3
_ONES = np.ones(_TERMS)
ROW = 2 + WIDTH + 2 * _TERMS
"""Length of `SlowdownFunction.row`."""


class SlowdownFunctions:
    """The functions of batches that run together, in one or many cases at once; all of one learner.

    rows: (..., ROW, n), a column per batch, which is the order that numpy is fast in; read anew at each call.
    """

    def __init__(self, rows: Matrix) -> None:
        self._linear = rows[..., 2 : 2 + WIDTH, :]
        self._offsets = rows[..., 2 + WIDTH : 2 + WIDTH + _TERMS, :]
        self._factors = rows[..., 2 + WIDTH + _TERMS :, :]
        self._rest = rows[..., 1, :]
        self._logarithmic = rows.size > 0 and bool(rows.item(0))

    def slowdowns(self, sums: Vector, sharing: Matrix | None = None) -> Vector:
        """(..., n) where all that runs, its own batch included, contributes `sums`, (..., 6). Not bounded below.

        sharing: (..., n) of y, where batches share cores.
        """
        terms = self._offsets + sums.take(_USED, axis=-1)[..., None]
        np.maximum(terms, 0.0, out=terms)
        uses = terms[..., :4, :]
        uses /= uses + HALF
        terms *= self._factors
        y: Vector = (sums[..., None, :] @ self._linear)[..., 0, :]
        y += _ONES @ terms
        y += self._rest
        if sharing is not None:
            y += sharing
        np.minimum(y, LOG_MAX if self._logarithmic else SLOWDOWN_MAX, out=y)
        return np.exp(y, out=y) if self._logarithmic else y
