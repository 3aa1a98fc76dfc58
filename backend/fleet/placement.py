"""Placement: which machines hold which models, so that requests wait and slow each other down as little as possible.

The cost of a plan is the mean number of requests that are somewhere in the fleet (by Little's law their mean latency),
as predicted for each machine from what it holds. With ρ the share of its lanes' time that is taken and P the mean sum
of the pressures of what runs there, a request of model k takes

    solo_k · (base_k + sensitivity_k · P without its own) / (1 − ρ)

there, and beyond `FULL` the cost goes on along its parabola there, so that spreading an overload is better too. A
model's requests are spread over its machines as these are fast at it. Deterministic: equal input gives an equal plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from backend.errors import ConfigError

FULL = 0.9
"""Share of the lanes' time from which the cost goes on along its parabola there."""
LOOKED_AT = 8
"""Machines of each type, the cheapest, that a step may put a model on."""
GAIN = 0.1
"""Share of a machine's mean cost that a model on one more machine, or on another one, has to save."""


SOLO, SLOWDOWN = "solo latency", "slowdown"
"""What of a model's figures may have been predicted."""


class ModelFigures(NamedTuple):
    """A model on one type of machine. solo_ns: of a lane per request, its batches considered; predicted: what of it was
    never measured on that type; the rest as in `ModelState`.
    """

    solo_ns: float
    base: float = 1.0
    sensitivity: float = 0.0
    pressure: float = 0.0
    predicted: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelDemand:
    """A model to place. figures: by type of machine; it is placed on no other. replicas: least number of machines."""

    name: str
    rate_per_s: float
    memory_bytes: int
    figures: Mapping[str, ModelFigures]
    replicas: int = 1


@dataclass(frozen=True)
class MachineSpace:
    """A machine to place models on. kind: its type; holds: models that are there now."""

    name: str
    kind: str
    memory_bytes: int
    lanes: int = 1
    holds: tuple[str, ...] = ()


class Move(NamedTuple):
    """One step of a plan. gain: requests in the fleet that it saves in the mean; 0 where it has to be."""

    action: Literal["load", "unload"]
    model: str
    machine: str
    gain: float


class PredictedFigures(NamedTuple):
    """A model that a plan has on a machine by figures that were not measured there. what: `SOLO`, `SLOWDOWN`."""

    model: str
    machine: str
    what: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """holds: models by machine, in the order of their names; moves: from what is held now, in their order. before,
    after: predicted mean number of requests in the fleet; before: once what has to be is done. predicted: of what it
    holds.
    """

    holds: Mapping[str, tuple[str, ...]]
    moves: tuple[Move, ...]
    before: float
    after: float
    predicted: tuple[PredictedFigures, ...] = ()


def place(
    models: Sequence[ModelDemand], machines: Sequence[MachineSpace], gain: float = GAIN, moves_max: int = 1000
) -> Plan:
    """Plan from what the machines hold now. gain: see `GAIN`; moves_max: of those that are not needed.

    Raises ConfigError where a model fits nowhere, two have one name, or a machine holds more than its memory.
    """
    _check_names("models", [model.name for model in models])
    _check_names("machines", [machine.name for machine in machines])
    try:
        search = _Search(models, machines)
        search.place_missing(_busy)
    except ConfigError:  # the largest first fit where the busiest first do not
        search = _Search(models, machines)
        search.place_missing(lambda model: model.memory_bytes)
    before = search.cost
    search.improve(gain, moves_max)
    return Plan(search.holds(), tuple(search.moves), before, search.cost, search.predicted())


def _check_names(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two of the {what} to place are named '{name}'; each needs a name of its own")


class _Step(NamedTuple):
    """A model goes onto a machine, and off another one where that is not None."""

    saved: float
    model: str
    onto: int
    off: int | None


_LEAST = 1e-9


class _Search:
    """A plan under way. machines: by number; held: numbers of machines, by model."""

    def __init__(self, models: Sequence[ModelDemand], machines: Sequence[MachineSpace]) -> None:
        self._models = {model.name: model for model in models}
        self._machines = machines
        self._held: dict[str, list[int]] = {model.name: [] for model in models}
        self._on: list[list[str]] = [[] for _ in machines]
        self._free = [machine.memory_bytes for machine in machines]
        self.moves: list[Move] = []
        for number, machine in enumerate(machines):
            for name in machine.holds:
                self._take_over(number, name)
        self._costs = [self._machine_cost(number) for number in range(len(machines))]

    @property
    def cost(self) -> float:
        """Predicted mean number of requests in the fleet."""
        return sum(self._costs)

    def holds(self) -> dict[str, tuple[str, ...]]:
        """Models by machine."""
        return {machine.name: tuple(sorted(on)) for machine, on in zip(self._machines, self._on, strict=True)}

    def predicted(self) -> tuple[PredictedFigures, ...]:
        """Models that are where their figures were not measured, by machine."""
        found = ((machine, name) for machine, on in zip(self._machines, self._on, strict=True) for name in sorted(on))
        whats = ((m, name, self._models[name].figures[m.kind].predicted) for m, name in found)
        return tuple(PredictedFigures(name, machine.name, what) for machine, name, what in whats if what)

    def place_missing(self, first: Callable[[ModelDemand], float]) -> None:
        """Place what is on too few machines, where each costs least, in descending order of `first`."""
        for model in sorted(self._models.values(), key=lambda m: (-first(m), m.name)):
            while len(self._held[model.name]) < model.replicas:
                found = self._best_place(model)
                if found is None:
                    raise self._no_place(model)
                self._do("load", model.name, found[1], 0.0)

    def improve(self, gain: float, moves_max: int) -> None:
        """Put models on one more machine, or on another one, as long as each saves enough."""
        for _ in range(moves_max):
            step = self._next_step(max(gain * self.cost / max(1, len(self._machines)), _LEAST))
            if step is None:
                return
            self._do("load", step.model, step.onto, step.saved)
            if step.off is not None:
                self._do("unload", step.model, step.off, 0.0)

    def _next_step(self, least: float) -> _Step | None:
        """The best for the dearest machine that can be helped."""
        for number in sorted(range(len(self._machines)), key=lambda n: (-self._costs[n], n)):
            if self._costs[number] <= least:
                return None
            best = max(self._steps(number), key=lambda step: step.saved, default=None)
            if best is not None and best.saved >= least:
                return best
        return None

    def _steps(self, number: int) -> Iterable[_Step]:
        """Each of a machine's models on one more machine, or on another one."""
        for name in sorted(self._on[number]):
            held = self._held[name]
            for onto in self._cheapest(self._places(self._models[name])):
                yield _Step(self._saved(name, [*held, onto]), name, onto, None)
                yield _Step(self._saved(name, [*[n for n in held if n != number], onto]), name, onto, number)

    def _best_place(self, model: ModelDemand) -> tuple[float, int] | None:
        """(cost added, machine) of the model on one more machine."""
        found = [(-self._saved(model.name, [*self._held[model.name], n]), n) for n in self._places(model)]
        return min(found, default=None)

    def _places(self, model: ModelDemand) -> list[int]:
        """Machines that could hold the model and do not."""
        held = self._held[model.name]
        return [
            n
            for n, machine in enumerate(self._machines)
            if n not in held and machine.kind in model.figures and self._free[n] >= model.memory_bytes
        ]

    def _cheapest(self, numbers: list[int]) -> list[int]:
        """Machines that cost least, so many of each type."""
        kinds: dict[str, int] = {}
        found = []
        for number in sorted(numbers, key=lambda n: (self._costs[n], n)):
            kind = self._machines[number].kind
            kinds[kind] = kinds.get(kind, 0) + 1
            if kinds[kind] <= LOOKED_AT:
                found.append(number)
        return found

    def _saved(self, name: str, held: list[int]) -> float:
        """Cost saved if the model was on these machines instead."""
        before = self._held[name]
        touched = sorted({*before, *held})
        self._set(name, held)
        after = sum(self._machine_cost(n) for n in touched)
        self._set(name, before)
        return sum(self._costs[n] for n in touched) - after

    def _do(self, action: Literal["load", "unload"], name: str, number: int, gain: float) -> None:
        before = self._held[name]
        after = [*before, number] if action == "load" else [n for n in before if n != number]
        self._free[number] += self._models[name].memory_bytes * (-1 if action == "load" else 1)
        self._set(name, after)
        for touched in {*before, *after}:
            self._costs[touched] = self._machine_cost(touched)
        self.moves.append(Move(action, name, self._machines[number].name, gain))

    def _set(self, name: str, held: list[int]) -> None:
        for number in self._held[name]:
            self._on[number].remove(name)
        for number in held:
            self._on[number].append(name)
        self._held[name] = held

    def _take_over(self, number: int, name: str) -> None:
        """Count what a machine holds now; a model that is wanted no more, or not there, is unloaded first."""
        machine, model = self._machines[number], self._models.get(name)
        if model is None or machine.kind not in model.figures:
            self.moves.append(Move("unload", name, machine.name, 0.0))
            return
        if self._free[number] < model.memory_bytes:
            raise ConfigError(
                f"machine '{machine.name}' is said to hold model '{name}' of {model.memory_bytes} bytes, but of its "
                f"{machine.memory_bytes} bytes only {self._free[number]} are left beside the others"
            )
        if number not in self._held[name]:
            self._free[number] -= model.memory_bytes
            self._held[name].append(number)
            self._on[number].append(name)

    def _no_place(self, model: ModelDemand) -> ConfigError:
        kinds = [n for n, machine in enumerate(self._machines) if machine.kind in model.figures]
        others = [n for n in kinds if n not in self._held[model.name]]
        if not others:
            return ConfigError(
                f"model '{model.name}' is to be on {model.replicas} machines, but only {len(kinds)} are of a type that "
                f"it has figures for: {', '.join(sorted(model.figures)) or 'none'}"
            )
        most = max(others, key=lambda n: self._free[n])
        return ConfigError(
            f"model '{model.name}' needs {model.memory_bytes} bytes, but no machine has so much left: the most is "
            f"{self._free[most]} bytes on '{self._machines[most].name}'"
        )

    # Prediction

    def _machine_cost(self, number: int) -> float:
        """Mean number of requests on a machine."""
        machine = self._machines[number]
        taken = [
            (self._rate_per_s(name, number), self._models[name].figures[machine.kind]) for name in self._on[number]
        ]
        shares = [rate * f.solo_ns / 1e9 for rate, f in taken]
        pressure = sum(share * f.pressure for share, (_, f) in zip(shares, taken, strict=True))
        work = 0.0
        for share, (_, f) in zip(shares, taken, strict=True):
            others = max(0.0, pressure - share * f.pressure)
            work += share * (f.base + f.sensitivity * others)
        busy = work / machine.lanes
        if busy <= FULL:
            return work / (1.0 - busy)
        free, more = 1.0 - FULL, busy - FULL
        return machine.lanes * (FULL / free + more / free**2 + more**2 / free**3)

    def _rate_per_s(self, name: str, number: int) -> float:
        """Requests of a model that go to one of its machines."""
        model = self._models[name]
        speeds = {n: self._machines[n].lanes / model.figures[self._machines[n].kind].solo_ns for n in self._held[name]}
        return model.rate_per_s * speeds[number] / sum(speeds.values())


def _busy(model: ModelDemand) -> float:
    """Lane time that its requests take per second, on the machines that are slowest at it."""
    return model.rate_per_s * max((f.solo_ns for f in model.figures.values()), default=0.0) / 1e9
