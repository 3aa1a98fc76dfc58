"""Running means by key, bounded in number: of a model, a batch size, or one exact co-location."""

from __future__ import annotations

import msgspec


class KeyedMeans:
    """key -> (weight, mean). A mean counts for at most `horizon` samples, so old ones fade; the stalest key goes."""

    def __init__(self, size: int, horizon: float) -> None:
        self._size, self._horizon = size, horizon
        self._means: dict[str, tuple[float, float]] = {}

    def get(self, key: str) -> tuple[float, float]:
        return self._means.get(key, (0.0, 0.0))

    def learn(self, key: str, value: float) -> None:
        weight, mean = self._means.pop(key, (0.0, 0.0))
        weight = min(weight + 1.0, self._horizon)
        self._means[key] = (weight, mean + (value - mean) / weight)
        if len(self._means) > self._size:
            del self._means[next(iter(self._means))]

    def shrunk(self, key: str, pull: float) -> float:
        """The mean, drawn to 0 as by `pull` samples of 0."""
        weight, mean = self.get(key)
        return mean * weight / (weight + pull)

    def state(self) -> dict[str, tuple[float, float]]:
        return dict(self._means)

    def restore(self, state: object) -> None:
        means = msgspec.convert(state, dict[str, tuple[float, float]])
        if len(means) > self._size:
            raise ValueError(f"at most {self._size} keys are expected, got {len(means)}")
        self._means = means
