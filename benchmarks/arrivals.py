"""When requests leave, decided before the first does: Poisson arrivals from a seed, equal for whatever is compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one model is asked for. priority: 1 is the highest class."""

    model: str
    rate_per_s: float
    slo_ms: float
    priority: int = 1


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to be. at_s: from the start of the load."""

    at_s: float
    model: str
    slo_ms: float
    priority: int = 1


def poisson(traffic: Iterable[Traffic], seconds: float, seed: int) -> tuple[Arrival, ...]:
    """Each model's own Poisson process, merged in order of time; a model's times depend on its place and the seed."""
    arrivals = [
        Arrival(at_s, t.model, t.slo_ms, t.priority)
        for i, t in enumerate(traffic)
        for at_s in _times(t.rate_per_s, seconds, np.random.default_rng((seed, i)))
    ]
    return tuple(sorted(arrivals, key=lambda a: a.at_s))


def _times(rate_per_s: float, seconds: float, stream: np.random.Generator) -> Sequence[float]:
    """Given their number, the arrivals of a Poisson process lie uniformly."""
    times: list[float] = stream.uniform(0.0, seconds, stream.poisson(rate_per_s * seconds)).tolist()
    return times
