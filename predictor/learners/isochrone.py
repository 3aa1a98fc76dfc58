"""This project's learner as it serves: how sensitive and how demanding batches are, by features and by who they are.

`predictor.learners.interference_filter` has the equation. Its sum is additive over co-runners: `slowdown_function` has
it as weights on their summed contributions, and launches are decided by that. A drift of the machine comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, expm1, inf, log
from typing import ClassVar

import msgspec

from predictor.features import Exposure, Own, check
from predictor.learners.drift import Drift
from predictor.learners.interference_filter import MODELS, Expected, InterferenceFilter
from predictor.learners.learner import State, clipped
from predictor.learners.slots import Slots
from predictor.slowdown_function import SHARES, SLOTS, ZERO_SUMS, SlowdownFunction, Sums, room_of

_BLOCK, _EARLY, _MOVED, _MOVED_SD = 16, 64, 0.02, 0.5
"""Forecasts follow after so many batches; at once after each of the first ones, or where what was learned moves log
slowdown by so much, and by so many standard deviations of the noise."""


class Isochrone:
    """Slowdown of a batch by its co-runners, state bounded in size."""

    name: ClassVar[str] = "isochrone"

    def __init__(self) -> None:
        self._filter = InterferenceFilter()
        self._slots = Slots()
        self._drift = Drift()
        self._samples, self._published, self._moved = 0, 0, 0.0
        self._offset = 0.0
        """The drift's, as published."""
        self._functions: dict[Own, SlowdownFunction] = {}
        self._pressures: dict[Own, tuple[int, float]] = {}
        self._contributions: dict[Own, Sums] = {}
        self._pair_weights: dict[str, Sums] = {}
        """exp(δ) by the co-runner's slot, of a model."""
        self._learned: set[tuple[str, str]] = set()
        """Pairs that were learned from since forecasts followed."""
        self.revision = -1
        self._publish()

    # What launches are decided by

    def predict_one(self, own: Own, seen: Exposure) -> float:
        """By the form that launches are decided by."""
        check(own, seen)
        sums = [*seen.sums[1 : 1 + SHARES], *ZERO_SUMS[SHARES:]]
        for co_runner, overlap in seen.overlaps:
            slot, pressure = self._pressure_of(co_runner)
            sums[SHARES + slot] += overlap * pressure
        return self.slowdown_function(own).slowdown(sums, expm1(seen.sharing) if seen.sharing else 0.0)

    def contribution(self, own: Own) -> Sums:
        """Its shares, and its pressure in its model's slot."""
        known = self._contributions.get(own)
        if known is None:
            slot, pressure = self._pressure_of(own)
            known = (*own.load.features, *ZERO_SUMS[:slot], pressure, *ZERO_SUMS[SHARES + slot + 1 :])
            self._contributions[own] = known
        return known

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        """exp(o + drift) · (1 + exp(α) Σ_slot exp(δ_slot) · its pressure), and the terms in the exponent."""
        known = self._functions.get(own)
        if known is None:
            base = exp(self._filter.own_time(own) + self._offset)
            gain, weights = base * exp(self._filter.log_sensitivity(own)), self._weights_of(own.model)
            room, sharing = room_of(own.load), self._filter.sharing
            known = SlowdownFunction(base, gain, weights, room, self._overdraft, sharing)
            self._functions[own] = known
        return known

    def _pressure_of(self, own: Own) -> tuple[int, float]:
        """Its model's slot, and exp(β)."""
        known = self._pressures.get(own)
        if known is None:
            known = self._pressures[own] = (self._slots.of(own.model), exp(self._filter.log_pressure(own)))
        return known

    def _weights_of(self, model: str) -> Sums:
        """exp(δ) by slot; slot 0 is of all models that have none of their own."""
        known = self._pair_weights.get(model)
        if known is None:
            weights = [0.0] * SHARES + [1.0] * SLOTS
            for other, slot in self._slots:
                weights[SHARES + slot] = exp(self._filter.log_pair(model, other))
            known = self._pair_weights[model] = tuple(weights)
        return known

    # Learning

    def expect(self, known: Mapping[Own, Expected]) -> None:
        """Begin from what is known of batches, such as from other machines. Raises ValueError after any sample."""
        if self._samples:
            raise ValueError(f"expectations come before samples, but {self._samples} were learned from")
        self._filter.expect(known)
        self._publish()

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        """One step of the filter; forecasts follow it sooner or later."""
        check(own, seen, slowdown)
        self._samples += 1
        for co_runner, _ in seen.overlaps:
            self._learned.add((own.model, co_runner.model))
            if self._slots.take(co_runner.model, self._samples):
                self._moved = inf
                self._pair_weights.clear()
        step = self._filter.learn_one(own, seen, log(clipped(slowdown)), self._drift.offset, self._slots)
        self._drift.learn_one(step.error)
        self._moved += step.moved
        due = self._samples - self._published >= (_BLOCK if self._samples > _EARLY else 1)
        moved = max(self._moved, abs(self._drift.offset - self._offset))
        if due or moved > max(_MOVED, _MOVED_SD * self._filter.noise_sd):
            self._publish()

    def reset_drift(self) -> None:
        """Forget the drift that the machine is in: what is left is what batches do to each other."""
        self._drift.reset()
        self._publish()

    def _publish(self) -> None:
        """Forecasts follow what was learned; what followed from what was known before is void."""
        self._published, self._moved, self._offset = self._samples, 0.0, self._drift.offset
        self._functions.clear()
        self._pressures.clear()
        self._contributions.clear()
        self._renew_pair_weights()
        self._overdraft = self._filter.overdraft
        self.revision += 1

    def _renew_pair_weights(self) -> None:
        """Follow the pairs that were learned; slowdown functions that were handed out keep their weights."""
        for model, other in self._learned:
            weights = self._pair_weights.get(model)
            if weights is not None and other in self._slots:
                at = SHARES + self._slots.of(other)
                weight = exp(self._filter.log_pair(model, other))
                self._pair_weights[model] = (*weights[:at], weight, *weights[at + 1 :])
        self._learned.clear()
        if len(self._pair_weights) > MODELS:
            self._pair_weights.clear()

    def state(self) -> State:
        self._publish()
        self._pair_weights.clear()
        return {
            **self._filter.state(),
            "slots": self._slots.state(),
            "drift": self._drift.state(),
            "samples": self._samples,
        }

    def restore(self, state: State) -> None:
        """Become what `state()` described. Raises ValueError, unchanged, on anything else."""
        fresh = Isochrone()
        fresh._filter.restore(state)
        fresh._slots.restore(state.get("slots"))
        fresh._drift.restore(state.get("drift"))
        fresh._samples = msgspec.convert(state.get("samples"), int)
        fresh.revision = self.revision
        fresh._publish()
        self.__dict__.update(fresh.__dict__)
