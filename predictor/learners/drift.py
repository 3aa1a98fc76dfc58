"""The machine's drift: batches of all kinds are slower, or faster, than was learned, for a while."""

from __future__ import annotations

from predictor.learners.regression import STATE_MAX, array_of

_BATCHES = 4.0
"""Batches in the moving average of the errors."""
_MEMORY = 0.02
"""Weight of the newest batch in what tells how much of that average the next error repeats."""
_MOST = 0.8
"""Share of the average that is taken for drift at most: a machine that stays so is learned from like any other."""
_LITTLE = 1e-9


class Drift:
    """offset: of log slowdown, the regression of a batch's error on the moving average of those before it."""

    def __init__(self) -> None:
        self._mean, self._product, self._square = 0.0, 0.0, 0.0

    @property
    def offset(self) -> float:
        repeats = self._product / (self._square + _LITTLE)
        return self._mean * min(_MOST, max(0.0, repeats))

    def learn_one(self, error: float) -> None:
        """error: measured less predicted log slowdown, without any drift."""
        self._product += _MEMORY * (error * self._mean - self._product)
        self._square += _MEMORY * (self._mean * self._mean - self._square)
        self._mean += (error - self._mean) / _BATCHES

    def reset(self) -> None:
        """The machine is as ever; how much drift tells stays known."""
        self._mean = 0.0

    def state(self) -> list[float]:
        return [self._mean, self._product, self._square]

    def restore(self, state: object) -> None:
        """Raises ValueError, unchanged, on what is no state of this form."""
        self._mean, self._product, self._square = array_of(state, (3,), STATE_MAX).tolist()
