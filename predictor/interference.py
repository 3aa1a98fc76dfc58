"""Interference of one batch: how much beyond its solo latency each co-runner is expected to have cost it. Pure.

The one definition for reports on a log and for the metric of a running device.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from predictor.features import Own
from predictor.learners.learner import Forecaster

_NOISE_SD_MAX = 3.0
"""As the predictor's own filter has it: an error beyond tells nothing about co-runners."""

Overlaps = Sequence[tuple[Own, float]]
"""Co-runners, each with the share of a batch's execution that both ran."""


def expected_parts(predictor: Forecaster, own: Own, overlaps: Overlaps, on_core: Overlaps = ()) -> dict[str, float]:
    """Slowdown beside each co-runner alone less that beside none, × its overlap, summed by the co-runners' models.

    on_core: co-runners that shared its core. Models that are not expected to add anything are left out.
    """
    function, contribution = predictor.slowdown_function(own), predictor.contribution
    solo = function.solo
    parts: dict[str, float] = {}
    for other, share in overlaps:
        adds = share * (function.slowdown(contribution(other)) - solo)
        if adds > 0.0:
            parts[other.model] = parts.get(other.model, 0.0) + adds
    for other, share in on_core:
        adds = share * (function.slowdown(contribution(other), 1) - solo)
        if adds > 0.0:
            parts[other.model] = parts.get(other.model, 0.0) + adds
    return parts


def overlaps_by_model(*overlaps: Overlaps) -> dict[str, float]:
    """Overlaps alone, summed by the co-runners' models: weights where none is expected to add anything."""
    found: dict[str, float] = {}
    for several in overlaps:
        for other, share in several:
            found[other.model] = found.get(other.model, 0.0) + share
    return found


def explicable_ns(solo_ns: int, expected: float, noise_sd: float) -> float:
    """The most beyond its solo latency that a batch's co-runners may have caused.

    expected: its slowdown beside them, as predicted now; noise_sd: standard deviation of log(measured / expected).
    """
    return max(0.0, solo_ns * (expected * exp(_NOISE_SD_MAX * noise_sd) - 1.0))
