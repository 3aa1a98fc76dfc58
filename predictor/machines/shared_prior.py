"""Expectations of a machine's sensitivities and pressures before its own samples, from those of other machines.

Other machines count by how alike their peaks are. With ā the weighted mean of their log sensitivities a, each about its
own machine's mean, and q_i the log of its solo latency there over theirs, about the median, a kind i has there

    a_i = c + g · ā_i + Σ_m h_m · (a_im − ā_i) + e · q_i + Δ_i

and likewise its log pressure, without c. c, g, h and e are the machine's, learned from its samples, beginning at the
mean of theirs, 1, 0 and 0. A machine on which kinds are more alike than elsewhere, as where they take turns, has a
small g: an exponent of what co-runners add. Δ is shrunk to 0 with a strength that is fitted on the known machines;
sizes of one model differ less than models do. Without other machines c and Δ are all there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from predictor.machines.combinations import Kind
from predictor.machines.fit import Array, Prior
from predictor.machines.priors import Priors, Strength

_PAIRS_UNUSED = 1e-6
_UNKNOWN = 0.05
"""Weight of 0 in the mean over machines, which is then all there is of kinds that none of them knows."""
_OF_MODEL, _OF_NEAR_SIZES, _OF_SIZE = 0.49, 0.36, 0.15
"""Parts of Δ's variance: common to a model; to its sizes, fading by the factor of e per `_SIZES_FADE`; a size's own."""
_SIZES_FADE = 2.0
"""In doublings."""


class KnownMachine(NamedTuple):
    """A machine by its own samples alone. numbers: kind -> (log sensitivity less `origin`, log pressure, and how well
    each is known, 0..1); pairs: (own, co-runner) -> what they differ by; log_solo: kind -> log of ns.
    """

    origin: float
    numbers: Mapping[Kind, tuple[float, float, float, float]]
    pairs: Mapping[tuple[Kind, Kind], float]
    log_solo: Mapping[Kind, float]


class Rows(NamedTuple):
    """Kinds' expectations. mean: (2n,) of log sensitivities, then log pressures; columns: (2n, q), by which c, g, h and
    e, in units of their standard deviations, change these; own_sd: (2n,) of Δ.
    """

    mean: Array
    columns: Array
    own_sd: Array


class SharedPrior:
    """Prior of one machine."""

    def __init__(
        self,
        priors: Priors,
        others: Sequence[tuple[float, KnownMachine]] = (),
        log_solo: Mapping[Kind, float] = MappingProxyType({}),
        strength: Strength | None = None,
    ) -> None:
        """others: with their weights; log_solo: of this machine; strength: variances of Δ of kinds that others know
        well.
        """
        self._priors = priors
        total = sum(weight for weight, _ in others)
        self._others = [(weight / total, known) for weight, known in others]
        self.strength = priors.alone if strength is None else strength
        self.origin = sum(weight * known.origin for weight, known in self._others) if others else priors.origin
        ratios = [ratio for kind, solo in log_solo.items() if (ratio := self._solo_ratio(kind, solo)) is not None]
        self._speed = float(np.median(ratios)) if ratios else 0.0

    def rows(self, kinds: Sequence[Kind], log_solo: Mapping[Kind, float]) -> Rows:
        """log_solo: on this machine, of kinds that have one."""
        n, zero, priors = len(kinds), np.zeros(len(kinds)), self._priors
        values = np.array([[known.numbers.get(kind, (0.0,) * 4) for kind in kinds] for _, known in self._others])
        values = values.reshape(len(self._others), n, 4)
        weights = np.array([weight for weight, _ in self._others]).reshape(-1, 1, 1) * values[:, :, 2:]
        means = (weights * values[:, :, :2]).sum(axis=0) / (weights.sum(axis=0) + _UNKNOWN)
        columns = [np.concatenate([np.full(n, priors.origin_sd), zero])]
        if self._others:
            ratio = np.array([self._relative_solo(kind, log_solo) for kind in kinds])
            mixes = values[:, :, 2:] * (values[:, :, :2] - means)
            for sd, number in (
                (priors.gain_sd, means),
                (priors.solo_sd, np.stack([ratio, ratio], axis=1)),
                *((priors.mix_sd, mix) for mix in mixes),
            ):
                columns += [np.concatenate([sd * number[:, 0], zero]), np.concatenate([zero, sd * number[:, 1]])]
        known = weights.sum(axis=0)
        variance = np.array(priors.alone) + known * (np.array(self.strength) - priors.alone)
        mean = np.concatenate([self.origin + means[:, 0], means[:, 1]])
        return Rows(mean, np.stack(columns, axis=1), np.sqrt(variance).T.ravel())

    def prior(self, kinds: Sequence[Kind], rows: Rows) -> Prior:
        """Joint expectation of the kinds, with their rows."""
        n = len(kinds)
        covariance = np.zeros((2 * n + 1, 2 * n + 1))
        covariance[:-1, :-1] = rows.columns @ rows.columns.T
        alike = likenesses(kinds, kinds)
        for part in (slice(0, n), slice(n, 2 * n)):
            covariance[part, part] += np.outer(rows.own_sd[part], rows.own_sd[part]) * alike
        pairs, index = np.zeros((n, n)), {kind: i for i, kind in enumerate(kinds)}
        for weight, known in self._others:
            for (own, other), difference in known.pairs.items():
                if own in index and other in index:
                    pairs[index[own], index[other]] += weight * difference
        priors = self._priors
        covariance[-1, -1] = priors.pairs_sd**2 if pairs.any() else _PAIRS_UNUSED
        return Prior(np.append(rows.mean, priors.pairs), covariance, pairs, priors.pair_variance, priors.noise)

    def pair(self, own: Kind, other: Kind) -> float:
        """Difference of this pair on the other machines, 0 where none has had it."""
        return sum(weight * known.pairs.get((own, other), 0.0) for weight, known in self._others)

    def _solo_ratio(self, kind: Kind, log_solo: float) -> float | None:
        found = [(weight, known.log_solo[kind]) for weight, known in self._others if kind in known.log_solo]
        total = sum(weight for weight, _ in found)
        return log_solo - sum(weight * solo for weight, solo in found) / total if found else None

    def _relative_solo(self, kind: Kind, log_solo: Mapping[Kind, float]) -> float:
        """q, about what is usual on the machine; 0 where unknown."""
        ratio = self._solo_ratio(kind, log_solo[kind]) if kind in log_solo else None
        return 0.0 if ratio is None else ratio - self._speed


def likenesses(kinds: Sequence[Kind], others: Sequence[Kind]) -> Array:
    """(n, m) correlations of Δ."""
    names: dict[str, int] = {}
    one, two = (
        np.array([names.setdefault(model, len(names)) for model, _ in ks], dtype=float) for ks in (kinds, others)
    )
    doublings, theirs = (np.array([log2(max(1, size)) for _, size in ks]) for ks in (kinds, others))
    apart = np.abs(doublings[:, None] - theirs)
    same = one[:, None] == two
    found: Array = same * (_OF_MODEL + _OF_NEAR_SIZES * np.exp(-apart / _SIZES_FADE) + _OF_SIZE * (apart == 0.0))
    return found
