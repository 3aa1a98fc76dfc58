"""One predictor of slowdowns for all types of machines: on each, two numbers per model and batch size.

    slowdown = 1 + Σ_j t_j · sensitivity_i · pressure_j · exp(pair_ij)

A machine's numbers follow from those on other machines (`shared_prior`), corrected by its own samples (`fit`). A sample
is only remembered; a machine is fitted anew once it knows a quarter more combinations, or has had half as many samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, inf, isfinite, log
from operator import mul

import msgspec

from predictor.features import Own
from predictor.learners.learner import State, clipped
from predictor.machines.combinations import KINDS_MAX, Combinations, Kind
from predictor.machines.fitted_machine import FittedMachine, Interference
from predictor.machines.peaks import MachinePeaks, likeness
from predictor.machines.priors import PRIORS, Priors, Strength
from predictor.machines.shared_prior import SharedPrior
from predictor.workload import SOLO_NS_MAX

MACHINES_MAX = 32
"""The one that was added, or learned from, longest ago goes."""
_BLOCK, _GROWTH = 64, 4
_LOG_MAX = 8.0
_STRENGTH_MIN, _STRENGTH_MAX = 1e-3, 1e3
_LOG_SOLO_MAX = log(SOLO_NS_MAX) + 1e-9

Overlaps = Sequence[tuple[Own, float]]
"""Co-runners, each with the part of the batch's time that it was there, as `Exposure.overlaps` has them."""


class _Machine:
    """A machine's samples, and its fits: by these alone, and with the other machines."""

    def __init__(self, peaks: MachinePeaks, priors: Priors) -> None:
        self.peaks = peaks
        self._own_prior = SharedPrior(priors)
        self.seen = Combinations()
        self.log_solo: dict[Kind, float] = {}
        self.alone = FittedMachine(self._own_prior, self.seen, {})
        self.known = self.alone.known({})
        self.fitted: FittedMachine | None = None
        """None: has to be fitted."""
        self.samples, self.combinations = 0, 0
        """Samples since its own fit, combinations at that time."""

    def due(self) -> bool:
        """Return whether its samples ask for another fit."""
        grown = len(self.seen) - self.combinations
        return grown > self.combinations // _GROWTH or self.samples >= max(_BLOCK, len(self.seen) // 2)

    def note_solo(self, own: Own) -> None:
        """Keep a solo latency, where it is known."""
        kind = own.model, own.batch_size
        self.log_solo.pop(kind, None)
        if own.load.solo_ns > 0:
            self.log_solo[kind] = log(own.load.solo_ns)
        if len(self.log_solo) > KINDS_MAX:
            del self.log_solo[next(iter(self.log_solo))]

    def fit_alone(self) -> None:
        """Renew what other machines learn from it."""
        self.alone = FittedMachine(self._own_prior, self.seen, {}, self.alone)
        self.known = self.alone.known(self.log_solo)
        self.samples, self.combinations = 0, len(self.seen)


class MachinePredictor:
    """Slowdowns on machines that have run little, or nothing, by those on others. State bounded in size.

    `Own.load` of a batch, and of its co-runners, is that on the machine in question. Its solo latency is used, beside
    those of the same batch on other machines; its shares are not.
    """

    def __init__(self, priors: Priors = PRIORS) -> None:
        self._priors = priors
        self._machines: dict[str, _Machine] = {}
        self._strength = priors.mapped
        self._fits: dict[str, int] = {}
        """Number of the last fit of each machine."""
        self._renewals = 0

    @property
    def machines(self) -> Mapping[str, MachinePeaks]:
        """Known machines, the one added or learned from last at the end."""
        return {name: machine.peaks for name, machine in self._machines.items()}

    def add_machine(self, machine: str, peaks: MachinePeaks) -> None:
        """Make a machine known, or its peaks; what was learned of it stays."""
        known = self._machines.pop(machine, None) or _Machine(peaks, self._priors)
        known.peaks, known.fitted = peaks, None
        self._machines[machine] = known
        self._fits[machine] = 0
        if len(self._machines) > MACHINES_MAX:
            gone = next(iter(self._machines))
            del self._machines[gone], self._fits[gone]

    def add_model(self, machine: str, own: Own) -> None:
        """Make a solo latency known, as a profile has it, before any sample."""
        known = self._of(machine)
        known.note_solo(own)
        known.fitted = None

    def learn_one(self, machine: str, own: Own, co_runners: Overlaps, slowdown: float) -> None:
        """From a finished batch. Raises ValueError, unchanged, on an unknown machine or what is no slowdown."""
        known, overlaps = self._of(machine), _by_kind(co_runners)
        if not (isfinite(slowdown) and slowdown > 0.0):
            raise ValueError(f"cannot learn from slowdown {slowdown}, which must be a positive number")
        self._machines[machine] = self._machines.pop(machine)
        for batch in (own, *(co_runner for co_runner, _ in co_runners)):
            known.note_solo(batch)
        known.seen.add((own.model, own.batch_size), overlaps, log(clipped(slowdown)))
        known.samples += 1
        if known.due():
            self._renew(machine)

    def predict_one(self, machine: str, own: Own, co_runners: Overlaps) -> float:
        """Slowdown (ratio, at least 1) of a batch. Raises ValueError on an unknown machine or overlap."""
        fitted, kind = self._fitted(machine), (own.model, own.batch_size)
        sensitivity, total = fitted.interference(kind, _log_solo(own)).log_sensitivity, 0.0
        for co_runner, overlap in co_runners:
            _check(overlap)
            other = co_runner.model, co_runner.batch_size
            pressure = fitted.interference(other, _log_solo(co_runner)).log_pressure
            total += overlap * exp(min(_LOG_MAX, sensitivity + pressure + fitted.pair(kind, other)))
        return clipped(1.0 + total)

    def interference(self, machine: str, own: Own) -> Interference:
        """Sensitivity and pressure of a batch there, pairs apart; also of one that never ran there, or anywhere."""
        return self._fitted(machine).interference((own.model, own.batch_size), _log_solo(own))

    def renew(self) -> None:
        """Fit all machines anew that have samples since."""
        for machine, known in self._machines.items():
            if known.samples:
                self._renew(machine)
            known.fitted = None

    def state(self) -> State:
        """Samples and peaks; all else follows from them."""
        machines = [
            (name, known.peaks, known.seen.state(), list(known.log_solo.items()))
            for name, known in self._machines.items()
        ]
        return {"machines": msgspec.to_builtins(machines), "strength": list(self._strength)}

    def restore(self, state: State) -> None:
        """Become what `state()` described. Raises ValueError, unchanged, on anything else."""
        machines = msgspec.convert(
            state.get("machines"), list[tuple[str, MachinePeaks, object, list[tuple[Kind, float]]]]
        )
        strength = msgspec.convert(state.get("strength"), Strength)
        if len(machines) > MACHINES_MAX or any(len(solo) > KINDS_MAX for *_, solo in machines):
            raise ValueError(f"at most {MACHINES_MAX} machines with {KINDS_MAX} solo latencies each are expected")
        if not all(_STRENGTH_MIN <= variance <= _STRENGTH_MAX for variance in strength):
            raise ValueError(f"variances from {_STRENGTH_MIN} to {_STRENGTH_MAX:g} are expected, got {strength}")
        fresh = MachinePredictor(self._priors)
        fresh._strength = strength
        for name, peaks, seen, log_solo in machines:
            known = fresh._machines[name] = _Machine(peaks, self._priors)
            known.seen.restore(seen)
            if not all(0.0 <= solo <= _LOG_SOLO_MAX for _, solo in log_solo):
                raise ValueError(f"solo latencies of {name} must be from 1 to {SOLO_NS_MAX} ns, as logarithms")
            known.log_solo = dict(log_solo)
            fresh._fits[name] = 0
            known.fit_alone()
        self.__dict__.update(fresh.__dict__)

    def _of(self, machine: str) -> _Machine:
        known = self._machines.get(machine)
        if known is None:
            names = ", ".join(sorted(self._machines)) or "none"
            raise ValueError(f"machine '{machine}' is unknown: it has to be added with its peaks first; known: {names}")
        return known

    def _fitted(self, machine: str) -> FittedMachine:
        known = self._of(machine)
        if known.fitted is None:
            known.fitted = self._fit(machine)
        return known.fitted

    def _fit(self, machine: str) -> FittedMachine:
        """From its own samples, and what those of the other machines say."""
        known = self._machines[machine]
        others = [
            (likeness(known.peaks, other.peaks), other.known)
            for name, other in self._machines.items()
            if name != machine and other.known.numbers
        ]
        if not others:
            return known.alone
        shared = SharedPrior(self._priors, others, known.log_solo, self._strength)
        return FittedMachine(shared, known.seen, known.log_solo, known.fitted or known.alone)

    def _renew(self, machine: str) -> None:
        """Fit this machine, then those without samples, and of those that know no more the one fitted longest ago."""
        known = self._machines[machine]
        known.fit_alone()
        less = {n: len(m.seen) for n, m in self._machines.items() if n != machine and len(m.seen) <= len(known.seen)}
        without = [name for name, seen in less.items() if not seen]
        stalest = sorted((name for name, seen in less.items() if seen), key=self._fits.__getitem__)[:1]
        for name in (machine, *without, *stalest):
            self._machines[name].fitted = self._fit(name)
            self._fits[name] = self._renewals
            self._renewals += 1
        self._learn_strength()

    def _learn_strength(self) -> None:
        """Mean over the machines that were fitted with others."""
        weights, found = [self._priors.mapped_weight], [self._priors.mapped]
        for known in self._machines.values():
            if known.fitted is not None and known.fitted is not known.alone and known.fitted.kinds:
                weights.append(len(known.fitted.kinds))
                found.append(known.fitted.strength)
        sensitivity, pressure = (
            max(_STRENGTH_MIN, sum(map(mul, weights, values)) / sum(weights)) for values in zip(*found, strict=True)
        )
        self._strength = sensitivity, pressure


def _by_kind(co_runners: Overlaps) -> dict[Kind, float]:
    """Overlaps summed over the co-runners of a kind."""
    found: dict[Kind, float] = {}
    for co_runner, overlap in co_runners:
        _check(overlap)
        kind = co_runner.model, co_runner.batch_size
        found[kind] = found.get(kind, 0.0) + overlap
    return found


def _check(overlap: float) -> None:
    if not 0.0 <= overlap < inf:
        raise ValueError(f"a co-runner's overlap is {overlap}, but must be a part of the batch's time, 0 or more")


def _log_solo(own: Own) -> float | None:
    return log(own.load.solo_ns) if own.load.solo_ns > 0 else None
