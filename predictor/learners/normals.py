"""Independent normal variables by key, bounded in number: what models, sizes and pairs differ by."""

from __future__ import annotations

from math import inf

import msgspec

Key = tuple[str | int, ...]


class Normals:
    """key -> mean and variance; an unknown one has mean 0 and the prior's variance. The stalest key goes."""

    def __init__(self, size: int, prior: float, forgetting: float) -> None:
        """prior: variance before any sample; forgetting: see `uncertain`."""
        self._size, self._prior, self._forgetting = size, prior, forgetting
        self._found: dict[Key, tuple[float, float]] = {}

    def mean(self, key: Key) -> float:
        found = self._found.get(key)
        return 0.0 if found is None else found[0]

    def uncertain(self, key: Key, noise: float) -> float:
        """Its variance now: since it was last learned it grew by a share of the noise's, at most to the prior's."""
        found = self._found.get(key)
        if found is None:
            return self._prior
        variance = found[1] + self._forgetting * noise
        return variance if variance < self._prior else self._prior

    def learn(self, key: Key, shift: float, variance: float) -> None:
        """Move its mean; `variance` is what is left."""
        found = self._found.pop(key, None)
        self._found[key] = ((0.0 if found is None else found[0]) + shift, variance)
        if len(self._found) > self._size:
            del self._found[next(iter(self._found))]

    def state(self) -> list[tuple[Key, float, float]]:
        return [(key, *found) for key, found in self._found.items()]

    def restore(self, state: object) -> None:
        """Become what `state()` described. Raises ValueError, unchanged, on anything else."""
        rows = msgspec.convert(state, list[tuple[Key, float, float]])
        if len(rows) > self._size:
            raise ValueError(f"at most {self._size} keys are expected, got {len(rows)}")
        if not all(-inf < mean < inf and 0.0 <= variance <= self._prior for _, mean, variance in rows):
            raise ValueError("finite means are expected, and variances up to the prior's")
        self._found = {key: (mean, variance) for key, mean, variance in rows}
