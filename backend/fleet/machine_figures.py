"""Figures of models on types of machines: as measured there, else predicted from the other types. Pure.

Devices' snapshots have what their schedulers have learned: solo latencies, and of each model its sensitivity and its
pressure. A model that has run on a type has its figures from there. On a type where it never ran,

    log solo = mean over types of log(solo there · ratio), weighted by how alike the types are

with the ratio in the median of the models that both types know, else of their peaks; and sensitivity and pressure are
those that `MachinePredictor` expects, which learns from every pair of models that a device has measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, isfinite, log
from statistics import fmean, median

import msgspec

from backend.fleet.placement import SLOWDOWN, SOLO, ModelFigures
from backend.fleet.snapshot import MAX_MODELS, DeviceSnapshot, ModelState
from predictor.features import Own
from predictor.machines.machine_predictor import MachinePredictor
from predictor.machines.peaks import MachinePeaks, likeness
from predictor.workload import SOLO_NS_MAX, Load

MEASURED = 32
"""Requests after which a device is taken to know how a model and its co-runners slow each other down."""
_PARTNERS = 12
"""Models of a device, those with most requests, whose pairs are learned."""
_VERSION = 1
_RATIO_MAX = 1e6


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """A model on a type, of one row. measured: it has run there often enough."""

    solo_ns: float
    base: float
    sensitivity: float
    pressure: float
    measured: bool

    def __post_init__(self) -> None:
        if not 1.0 <= self.solo_ns <= SOLO_NS_MAX:
            raise ValueError(f"a solo latency is {self.solo_ns} ns, but must be from 1 to {SOLO_NS_MAX}")
        for value in (self.base, self.sensitivity, self.pressure):
            if not (isfinite(value) and value >= 0.0):
                raise ValueError(f"base, sensitivity and pressure must be 0 or more, got {value}")


class _State(msgspec.Struct, frozen=True):
    """All that is kept, for a file."""

    version: int
    types: dict[str, dict[str, _Known]]
    predictor: dict[str, object]


class MachineFigures:
    """See the top. A type is named by its owner: its hardware's name. State bounded in size."""

    def __init__(self) -> None:
        self._predictor = MachinePredictor()
        self._types: dict[str, dict[str, _Known]] = {}

    def observe(self, machine: str, devices: Sequence[DeviceSnapshot]) -> None:
        """Learn from the snapshots of one server's devices, which are of that type together."""
        peaks = _peaks(devices)
        if self._predictor.machines.get(machine) != peaks:
            self._predictor.add_machine(machine, peaks)
        known = self._types.setdefault(machine, {})
        for state in _by_model(devices):
            _note(known, state)
            self._predictor.add_model(machine, _own(state))
        for snapshot in devices:
            self._learn_pairs(machine, snapshot)
        self._types = {name: self._types.get(name, {}) for name in self._predictor.machines}

    def figures(self, model: str, machine: str) -> ModelFigures | None:
        """Figures of a batch of one row there; None where nothing relates that type to one that knows the model."""
        known = self._types.get(machine, {}).get(model)
        if known is not None and known.measured:
            return ModelFigures(known.solo_ns, known.base, known.sensitivity, known.pressure)
        others = {name: of[model] for name, of in self._types.items() if name != machine and model in of}
        solo_ns = self._solo_ns(machine, others) if known is None else known.solo_ns
        if solo_ns is None:
            return None
        predicted = (SLOWDOWN,) if known is not None else (SOLO, SLOWDOWN)
        measured = {name: other for name, other in others.items() if other.measured}
        if not measured:
            found = known or others[self._alike(machine, others)]
            return ModelFigures(solo_ns, found.base, found.sensitivity, found.pressure, predicted)
        base = measured[self._alike(machine, measured)].base
        expected = self._predictor.interference(machine, Own(model, 1, _load(solo_ns)))
        unit = self._pressure_unit(machine)
        sensitivity, pressure = exp(expected.log_sensitivity), exp(expected.log_pressure)
        return ModelFigures(solo_ns, base, base * sensitivity / unit, pressure * unit, predicted)

    def state(self) -> object:
        """All of it, for a JSON file."""
        return _State(_VERSION, self._types, dict(self._predictor.state()))

    def restore(self, state: object) -> None:
        """Become what `state()` described, read from JSON. Raises ValueError, unchanged, on anything else."""
        found = msgspec.convert(state, _State)
        if found.version != _VERSION:
            raise ValueError(f"version {found.version} of figures is not known here, only {_VERSION}")
        predictor = MachinePredictor()
        predictor.restore(found.predictor)
        if found.types.keys() != predictor.machines.keys():
            raise ValueError("figures and their predictor are of different types of machines")
        if any(len(of) > MAX_MODELS for of in found.types.values()):
            raise ValueError(f"at most {MAX_MODELS} models are expected of a type of machine")
        self._predictor, self._types = predictor, found.types

    def _learn_pairs(self, machine: str, snapshot: DeviceSnapshot) -> None:
        """Every pair of models that the device has measured, with the slowdown that it has learned."""
        measured = [s for s in _by_model([snapshot]) if s.arrivals >= MEASURED and s.base > 0.0]
        measured = sorted(measured, key=lambda state: -state.arrivals)[:_PARTNERS]
        for own in measured:
            for other in measured:
                if other is not own:
                    slowdown = min(_RATIO_MAX, 1.0 + own.sensitivity / own.base * other.pressure)
                    self._predictor.learn_one(machine, _own(own), [(_own(other), 1.0)], slowdown)

    def _solo_ns(self, machine: str, others: dict[str, _Known]) -> float | None:
        """Solo latency where the model never ran."""
        found = [
            (self._likeness(machine, name), log(known.solo_ns * ratio))
            for name, known in others.items()
            if (ratio := self._ratio(name, machine)) is not None
        ]
        if not found:
            return None
        mean = sum(weight * value for weight, value in found) / sum(weight for weight, _ in found)
        return min(float(SOLO_NS_MAX), max(1.0, exp(mean)))

    def _ratio(self, one: str, other: str) -> float | None:
        """Solo latency on the other type over that on the first."""
        mine, theirs = self._types[one], self._types.get(other, {})
        common = [theirs[name].solo_ns / mine[name].solo_ns for name in mine.keys() & theirs.keys()]
        if common:
            return median(common)
        peaks = self._predictor.machines
        if one not in peaks or other not in peaks:
            return None
        first, second = peaks[one].compute_tflops, peaks[other].compute_tflops
        return None if first is None or second is None else first / second

    def _pressure_unit(self, machine: str) -> float:
        """Pressure as the type's devices have it over the predictor's: only its product with a sensitivity is known."""
        ratios = []
        for name, known in self._types.get(machine, {}).items():
            if known.measured and known.pressure > 0.0:
                expected = self._predictor.interference(machine, Own(name, 1, _load(known.solo_ns)))
                ratios.append(log(known.pressure) - expected.log_pressure)
        return exp(median(ratios)) if ratios else 1.0

    def _alike(self, machine: str, others: Iterable[str]) -> str:
        """The most alike of some types."""
        return max(others, key=lambda name: self._likeness(machine, name))

    def _likeness(self, machine: str, other: str) -> float:
        peaks = self._predictor.machines
        return likeness(peaks.get(machine, MachinePeaks()), peaks.get(other, MachinePeaks()))


def _note(known: dict[str, _Known], state: ModelState) -> None:
    """Keep what a device has of a model, but for a guess where another one has measured."""
    measured = state.arrivals >= MEASURED
    before = known.pop(state.name, None)
    if before is not None and before.measured and not measured:
        known[state.name] = before
    else:
        known[state.name] = _Known(_solo_of(state), state.base, state.sensitivity, state.pressure, measured)
    if len(known) > MAX_MODELS:
        del known[next(iter(known))]


def _by_model(devices: Iterable[DeviceSnapshot]) -> list[ModelState]:
    """Models of some devices, of versions and devices the one with most arrivals."""
    found: dict[str, ModelState] = {}
    for state in (state for snapshot in devices for state in snapshot.models):
        if state.name not in found or state.arrivals > found[state.name].arrivals:
            found[state.name] = state
    return list(found.values())


def _peaks(devices: Sequence[DeviceSnapshot]) -> MachinePeaks:
    """Means over a server's devices, of what all of them tell."""
    facts = [one.machine for one in devices]
    return MachinePeaks(
        _mean([one.compute_tflops for one in facts]),
        _mean([one.memory_gb_per_s for one in facts]),
        _rounded(_mean([one.multiprocessors for one in facts])),
        _rounded(_mean([one.memory_bytes for one in facts])),
        _rounded(_mean([one.lanes for one in devices])),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value and isfinite(value)]
    return fmean(known) if known and len(known) == len(values) else None


def _rounded(value: float | None) -> int | None:
    return None if value is None else max(1, round(value))


def _own(state: ModelState) -> Own:
    return Own(state.name, 1, _load(_solo_of(state)))


def _solo_of(state: ModelState) -> float:
    rows, solo_ns = state.solo_ns[0]
    return min(float(SOLO_NS_MAX), max(1.0, solo_ns / rows))


def _load(solo_ns: float) -> Load:
    return Load(round(solo_ns), 0.0, 0.0, 0.0)
