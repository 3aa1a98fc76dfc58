"""Who takes turns with whom in a timeline, where lanes share cores: from finish to finish, as the forecast goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from predictor.slowdown_function import Matrix, Vector


class Turns:
    """In k cases of n + 1 batches. cores: (n + 1,); weights: (k, n + 1), see `SlowdownFunction.sharing`; with_last:
    (k,) bools, False where the last one is not there.
    """

    def __init__(self, cores: Vector, weights: Matrix, with_last: Sequence[bool]) -> None:
        self._same = (cores[:, None] == cores).astype(float)
        self._weights = weights
        self._crowd: Matrix = np.tile(self._same.sum(axis=1) - 1.0, (len(with_last), 1))
        self._crowd[~np.array(with_last)] -= self._same[-1]
        np.maximum(self._crowd, 0.0, out=self._crowd)

    def terms(self) -> Matrix:
        """(k, n + 1) what sharing adds to each response."""
        found: Matrix = self._weights * np.log1p(self._crowd)
        return found

    def leave(self, first: Vector) -> None:
        """(k,) which one ends, in each case."""
        self._crowd -= self._same[first]
        np.maximum(self._crowd, 0.0, out=self._crowd)
