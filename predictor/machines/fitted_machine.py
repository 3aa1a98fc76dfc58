"""Sensitivities and pressures on one machine, as of one fit: of the kinds in its samples, and of any other kind."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import sqrt
from typing import NamedTuple

import numpy as np

from predictor.machines.combinations import Combinations, Kind
from predictor.machines.fit import Array, Prior, fit
from predictor.machines.priors import Strength
from predictor.machines.shared_prior import KnownMachine, SharedPrior, likenesses

_ASKED_MAX = 1024


class Interference(NamedTuple):
    """A kind on a machine: logarithms of its sensitivity and of its pressure, with their standard deviations."""

    log_sensitivity: float
    log_pressure: float
    log_sensitivity_sd: float
    log_pressure_sd: float


class FittedMachine:
    """A machine's numbers. They stay as they are; a later fit is another one."""

    def __init__(
        self,
        shared: SharedPrior,
        seen: Combinations,
        log_solo: Mapping[Kind, float],
        before: FittedMachine | None = None,
    ) -> None:
        """log_solo: of this machine; before: its last fit, to start from."""
        self._shared = shared
        self.kinds, observations = seen.observations()
        self._rows = shared.rows(self.kinds, log_solo)
        prior = shared.prior(self.kinds, self._rows)
        self._posterior = fit(prior, observations, None if before is None else self._start(before, prior))
        n, pairs = len(self.kinds), self._posterior.pairs
        mean: list[float] = self._posterior.mean.tolist()
        sd = np.sqrt(np.diagonal(self._posterior.covariance)).tolist()
        self._known = {kind: Interference(mean[i], mean[n + i], sd[i], sd[n + i]) for i, kind in enumerate(self.kinds)}
        self._pairs_here = mean[-1]
        own, other = (index.tolist() for index in np.nonzero(pairs))
        named = zip(own, other, pairs[own, other].tolist(), strict=True)
        self._pairs = {(self.kinds[i], self.kinds[j]): difference for i, j, difference in named}
        self._asked: dict[tuple[Kind, float | None], Interference] = {}

    def interference(self, kind: Kind, log_solo: float | None) -> Interference:
        """log_solo: of the kind on this machine, None where unknown."""
        known = self._known.get(kind) or self._asked.get((kind, log_solo))
        if known is None:
            if len(self._asked) >= _ASKED_MAX:
                self._asked.clear()
            known = self._asked[kind, log_solo] = self._expected(kind, log_solo)
        return known

    def pair(self, own: Kind, other: Kind) -> float:
        """Difference of the pair, of what its co-runner adds (logarithm)."""
        found = self._pairs.get((own, other))
        return self._pairs_here * self._shared.pair(own, other) if found is None else found

    def known(self, log_solo: Mapping[Kind, float]) -> KnownMachine:
        """All this as other machines learn from it, where it was fitted without them."""
        if not self.kinds:
            return KnownMachine(self._shared.origin, {}, {}, log_solo)
        values = np.array([self._known[kind] for kind in self.kinds])
        certain = np.clip(1.0 - values[:, 2:] ** 2 / np.array(self._shared.strength), 0.0, 1.0)
        origin = float(np.average(values[:, 0], weights=certain[:, 0] + 1e-9))
        numbers = np.concatenate([values[:, :2] - (origin, 0.0), certain], axis=1).tolist()
        by_kind = {kind: (a, b, c, d) for kind, (a, b, c, d) in zip(self.kinds, numbers, strict=True)}
        return KnownMachine(origin, by_kind, self._pairs, dict(log_solo))

    @cached_property
    def strength(self) -> Strength:
        """Variances of Δ by one step of expectation and maximization from those that it was fitted with."""
        n, pull, learned = len(self.kinds), self._posterior.pull, self._posterior.learned
        alike = likenesses(self.kinds, self.kinds)
        found = []
        for variance, part in zip(self._shared.strength, (slice(0, n), slice(n, 2 * n)), strict=True):
            sd = self._rows.own_sd[part]
            own = np.outer(sd, sd) * alike
            moved = float(pull[part] @ own @ pull[part]) - float((own * learned[part, part]).sum())
            found.append(variance * (1.0 + moved / max(1, n)))
        return found[0], found[1]

    def _start(self, before: FittedMachine, prior: Prior) -> Array:
        """Its last mean, where it has one."""
        n, start = len(self.kinds), prior.mean.copy()
        for i, kind in enumerate(self.kinds):
            if (known := before._known.get(kind)) is not None:
                start[i], start[n + i] = known.log_sensitivity, known.log_pressure
        start[-1] = before._posterior.mean[-1]
        return start

    def _expected(self, kind: Kind, log_solo: float | None) -> Interference:
        """Expectation of a kind that is in no sample here, given those that are."""
        n, posterior = len(self.kinds), self._posterior
        rows = self._shared.rows([kind], {} if log_solo is None else {kind: log_solo})
        covariance = np.zeros((2, 2 * n + 1))
        covariance[:, :-1] = rows.columns @ self._rows.columns.T
        alike = likenesses([kind], self.kinds)[0]
        covariance[0, :n] += rows.own_sd[0] * self._rows.own_sd[:n] * alike
        covariance[1, n:-1] += rows.own_sd[1] * self._rows.own_sd[n:] * alike
        mean = rows.mean + covariance @ posterior.pull
        variance = (rows.columns**2).sum(axis=1) + rows.own_sd**2
        variance -= np.einsum("ij,jk,ik->i", covariance, posterior.learned, covariance)
        sensitivity_sd, pressure_sd = (sqrt(max(0.0, value)) for value in variance.tolist())
        return Interference(float(mean[0]), float(mean[1]), sensitivity_sd, pressure_sd)
