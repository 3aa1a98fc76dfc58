"""An upper bound on execution time that holds for a chosen share of the batches, whatever the predictor's errors.

Adaptive conformal inference (Gibbs & Candès, NeurIPS 2021) over a sliding window of measured / predicted.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import inf

import msgspec


class UpperBound:
    """`multiplier` × predicted time is exceeded by a share of 1 − `coverage` of the batches in the long run.

    window: how many of the last ratios are kept; step: how fast the level follows misses (γ in the paper).
    """

    def __init__(self, coverage: float = 0.95, window: int = 500, step: float = 0.01) -> None:
        if not 0.5 <= coverage < 1.0:
            raise ValueError(f"coverage must lie in 0.5..1, got {coverage}")
        self._coverage, self._window, self._step = coverage, window, step
        self._level = coverage
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self.multiplier = 1.5

    def learn_one(self, ratio: float) -> None:
        """`ratio`: measured / predicted execution of a finished batch, both in the same unit.

        Raises ValueError on one that is not a positive number.
        """
        if not 0.0 < ratio < inf:
            raise ValueError(f"cannot learn from the ratio {ratio}")
        missed = ratio > self.multiplier
        self._level += self._step * ((1.0 if missed else 0.0) - (1.0 - self._coverage))
        self._level = min(0.9999, max(0.5, self._level))
        self._recent.append(ratio)
        insort(self._sorted, ratio)
        if len(self._recent) > self._window:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        n = len(self._sorted)
        if n >= 20:  # fewer say too little about a tail of 5 %
            rank = min(n - 1, int(self._level * (n + 1)))
            self.multiplier = self._sorted[rank]

    def state(self) -> dict[str, object]:
        """All that it learned, in numbers and lists."""
        return {"level": self._level, "multiplier": self.multiplier, "recent": list(self._recent)}

    def restore(self, state: object) -> None:
        """Become what `state()` described. Raises ValueError, unchanged, on anything else."""
        saved = msgspec.convert(state, _Saved)
        values = (saved.multiplier, *saved.recent)
        if not 0.5 <= saved.level < 1.0 or len(saved.recent) > self._window or not all(0.0 < v < inf for v in values):
            raise ValueError("a level in 0.5..1 and at most a window of positive ratios are expected")
        self._level, self.multiplier = saved.level, saved.multiplier
        self._recent, self._sorted = deque(saved.recent), sorted(saved.recent)


class _Saved(msgspec.Struct):
    level: float
    multiplier: float
    recent: list[float]
