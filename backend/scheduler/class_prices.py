"""Prices of higher classes' deadlines, in deadlines of lower ones, such that lower classes cost them what is allowed.

A request that missed was missed for lower classes' sake by their share of the batches that ran meanwhile. Where they
cost a class more than allowed its price rises, else it falls: what is measured sets it, so that a forecast which is
wrong by some factor only moves the price.
"""

from __future__ import annotations

from math import exp, log

CLASS_COST = 0.02
"""Share of a higher class's deadlines that lower classes may cost it, unless the user says otherwise."""
FIRST_PRICE, PRICE_MAX = 2.0, 200.0
"""A price before anything is known, and its bound: on drawn emulated GPUs prices came to lie between 10 and 150, the
higher the less a forecast is to be trusted, as while the predictor learns. The first is low, since a price rises after
a few losses but takes hundreds of kept deadlines to fall: `python -m benchmarks.policies --load 0.7 --seconds 5 --seeds
15` has class 2 keep 6 points less from a first price of 20, and class 1 no more."""
_STEP = 0.15
"""Change of a price's logarithm per deadline lost. A third of it did as well on drawn emulated GPUs, but recovers later
from a price that is too high."""
_BLAME = 2.0
"""Deadlines lost for each whose loss is seen: batches that were slowed slow others, and leave their lanes later. With 2
class 1 lost 1.3 to 2.7 points, in the mean over drawn emulated GPUs, at loads 0.7 to 1.5 on 2 and on 12 lanes; with 1,
and still 2 for rejections, up to 4; with 10 some 1 to 2, and class 2 up to a third of what it had kept.
`python -m benchmarks.emulated.priorities` measures it."""
_CLASSES_MAX = 16
"""Prices kept: classes are the callers' choice; further ones have the first price."""


class ClassPrices:
    """allowed: share of a class's deadlines that lower classes may cost it, 0 to 1."""

    def __init__(self, allowed: float = CLASS_COST) -> None:
        self.allowed = allowed
        self._logs: dict[int, float] = {}

    def price(self, priority: int) -> float:
        """Deadlines of lower classes that one of this class is worth; at least 1."""
        return exp(self._logs.get(priority, log(FIRST_PRICE)))

    def observe(self, priority: int, requests: int, lost_to_lower: float) -> None:
        """Learn from requests of one class that have ended, of which so many missed for lower classes' sake."""
        known = self._logs.get(priority)
        if known is None:
            if len(self._logs) >= _CLASSES_MAX:
                return
            known = log(FIRST_PRICE)
        change = _STEP * (min(float(requests), _BLAME * lost_to_lower) - self.allowed * requests)
        self._logs[priority] = min(log(PRICE_MAX), max(0.0, known + change))
