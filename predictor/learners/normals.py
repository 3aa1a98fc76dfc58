"""Independent normal variables by key, bounded in number: what models, sizes and pairs differ by."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from predictor.learners.regression import STATE_MAX

Key = tuple[str | int, ...]


class Normals:
    """key -> mean and variance; an unknown one has mean 0 and the prior's variance. The stalest key goes."""

    def __init__(self, size: int, prior: float, forgetting: float) -> None:
        """prior: variance before any sample; forgetting: share of the noise's variance, see `learn`."""
        self._size, self._prior, self._forgetting = size, prior, forgetting
        self._found: dict[Key, tuple[float, float]] = {}

    def mean(self, key: Key) -> float:
        found = self._found.get(key)
        return 0.0 if found is None else found[0]

    def spread(self, slopes: Mapping[Key, float], scale: float, noise: float) -> float:
        """Variance of scale · Σ slope · value. noise: see `learn`."""
        found, prior, grown = self._found, self._prior, self._forgetting * noise
        total = 0.0
        for key, slope in slopes.items():
            known = found.get(key)
            variance = prior if known is None or known[1] + grown > prior else known[1] + grown
            total += slope * slope * variance
        return total * scale * scale

    def learn(self, slopes: Mapping[Key, float], scale: float, noise: float, error: float, uncertain: float) -> None:
        """One step of a Kalman filter on scale · Σ slope · value.

        error: of what was expected; uncertain: its variance, all that it is made of. A variance first grows by a share
        of the noise's, at most to the prior's, so that old samples fade.
        """
        found, prior, grown = self._found, self._prior, self._forgetting * noise
        move, unknown = error / uncertain, (0.0, prior)
        for key, slope in slopes.items():
            mean, variance = found.pop(key, unknown)
            variance = variance + grown if variance + grown < prior else prior
            gain = variance * slope * scale
            found[key] = (mean + gain * move, variance - gain * gain / uncertain)
        while len(found) > self._size:
            del found[next(iter(found))]

    def expect(self, key: Key, mean: float, variance: float) -> None:
        """Take this for what is known of a key; a variance beyond the prior's is the prior's."""
        self._found[key] = mean, min(variance, self._prior)
        if len(self._found) > self._size:
            del self._found[next(iter(self._found))]

    def state(self) -> list[tuple[Key, float, float]]:
        return [(key, *found) for key, found in self._found.items()]

    def restore(self, state: object) -> None:
        """Become what `state()` described. Raises ValueError, unchanged, on anything else."""
        rows = msgspec.convert(state, list[tuple[Key, float, float]])
        if len(rows) > self._size:
            raise ValueError(f"at most {self._size} keys are expected, got {len(rows)}")
        if not all(-STATE_MAX <= mean <= STATE_MAX and 0.0 <= variance <= self._prior for _, mean, variance in rows):
            raise ValueError(
                f"means from {-STATE_MAX:g} to {STATE_MAX:g} are expected, and variances up to the prior's"
            )
        self._found = {key: (mean, variance) for key, mean, variance in rows}
