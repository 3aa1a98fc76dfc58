"""Constants of what is expected of machines before any sample, chosen once for all machines."""

from __future__ import annotations

from typing import NamedTuple

Strength = tuple[float, float]
"""Variances of what kinds differ by of themselves: of log sensitivities, of log pressures."""


class Priors(NamedTuple):
    """Standard deviations (`_sd`), variances and means; `shared_prior` and `fit` have the equations."""

    origin: float = -0.8
    """Log of what one co-runner adds, on a machine of which nothing is known."""
    origin_sd: float = 1.0
    """Of c, by how much a machine differs in it from those that are known."""
    gain_sd: float = 0.5
    """Of g, the exponent."""
    mix_sd: float = 0.3
    """Of h, by how much one of the known machines counts more or less than its likeness says."""
    solo_sd: float = 0.3
    """Of e, the weight of solo latencies."""
    alone: Strength = (0.25, 0.49)
    """Of Δ, for kinds that no other machine knows."""
    mapped: Strength = (0.09, 0.09)
    """Of Δ, for kinds that others know well, as long as no machines have been compared."""
    mapped_weight: float = 16.0
    """Kinds that `mapped` counts for when they have."""
    pairs: float = 0.5
    """Mean of r, the share of pairs' differences elsewhere that holds."""
    pairs_sd: float = 0.5
    pair_variance: float = 0.03
    """Of δ, what a pair differs by of itself."""
    noise: float = 0.003
    """Variance of a sample's log slowdown."""


PRIORS = Priors()
