"""Slowdowns that one machine has shown, by who ran with whom: bounded, the combination not seen for longest goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from predictor.machines.fit import Observations

COMBINATIONS_MAX, KINDS_MAX = 1024, 128
_COUNT_MAX = 64
"""Samples in the mean of a combination; later ones replace the older by and by."""
_OVERLAP_MAX, _LOG_MAX = 4096.0, 30.0
"""Of what is restored."""
_OVERLAP_STEPS = 16
"""Overlaps that differ by less than such a step are one combination."""

Kind = tuple[str, int]
"""A model and a batch size."""


class Combination(NamedTuple):
    """A batch, and its co-runners with their overlaps in fractions of its time, summed over those of a kind."""

    own: Kind
    overlaps: tuple[tuple[Kind, float], ...]


class Combinations:
    """All that is remembered of a machine's samples: combination -> number of samples, their mean log slowdown."""

    def __init__(self) -> None:
        self._found: dict[Combination, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, own: Kind, overlaps: Mapping[Kind, float], log_slowdown: float) -> None:
        """Learn a sample; one without co-runners tells nothing."""
        stepped = ((kind, round(overlap * _OVERLAP_STEPS) / _OVERLAP_STEPS) for kind, overlap in overlaps.items())
        key = Combination(own, tuple(sorted((kind, overlap) for kind, overlap in stepped if overlap > 0.0)))
        if not key.overlaps:
            return
        count, mean = self._found.pop(key, (0, 0.0))
        count = min(count + 1, _COUNT_MAX)
        self._found[key] = count, mean + (log_slowdown - mean) / count
        if len(self._found) > COMBINATIONS_MAX:
            del self._found[next(iter(self._found))]

    def observations(self) -> tuple[tuple[Kind, ...], Observations]:
        """Kinds that were seen last, and the combinations of these alone."""
        kinds: dict[Kind, int] = {}
        kept: list[Combination] = []
        for combination in reversed(self._found):
            fresh = {combination.own, *(kind for kind, _ in combination.overlaps)} - kinds.keys()
            if len(kinds) + len(fresh) <= KINDS_MAX:
                for kind in sorted(fresh):
                    kinds[kind] = len(kinds)
                kept.append(combination)
        entries = [(row, kinds[kind], overlap) for row, c in enumerate(kept) for kind, overlap in c.overlaps]
        rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
        overlaps = np.zeros((len(kept), len(kinds)))
        overlaps[list(rows), list(columns)] = values
        own = np.array([kinds[combination.own] for combination in kept], dtype=np.int64)
        means = np.array([self._found[combination] for combination in kept]).reshape(-1, 2)
        return tuple(kinds), Observations(own, overlaps, means[:, 1], means[:, 0])

    def state(self) -> list[tuple[Combination, int, float]]:
        return [(combination, *value) for combination, value in self._found.items()]

    def restore(self, state: object) -> None:
        """Become what `state()` described. Raises ValueError, unchanged, on anything else."""
        rows: Iterator[tuple[Combination, int, float]] = iter(
            msgspec.convert(state, list[tuple[Combination, int, float]])
        )
        found = {combination: (count, mean) for combination, count, mean in rows}
        if len(found) > COMBINATIONS_MAX:
            raise ValueError(f"at most {COMBINATIONS_MAX} combinations are expected, got {len(found)}")
        if not all(
            combination.overlaps
            and all(0.0 < overlap <= _OVERLAP_MAX for _, overlap in combination.overlaps)
            and 1 <= count <= _COUNT_MAX
            and abs(mean) <= _LOG_MAX
            for combination, (count, mean) in found.items()
        ):
            raise ValueError(
                f"co-runners with overlaps of at most {_OVERLAP_MAX:g}, 1 to {_COUNT_MAX} samples and a mean log "
                f"slowdown of at most {_LOG_MAX:g} are expected of each combination"
            )
        self._found = found
