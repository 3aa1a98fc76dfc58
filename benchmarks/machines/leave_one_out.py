"""Each machine in turn is new: errors of all rivals on what was not shown of it, for random samples of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machines.open_data import MeasuredMachine
from benchmarks.machines.rivals import Samples, known_machines, learned, rivals, two_numbers, unified_predictor
from predictor.machines.priors import PRIORS, Priors, Strength

_FOLDS = 10


class Figure(NamedTuple):
    """A rival on a new machine after so many samples. mapes: mean |predicted / measured − 1|, a value per repeat."""

    machine: str
    rival: str
    what: str
    samples: int
    mapes: tuple[float, ...]


class WholeMachine(NamedTuple):
    """Two numbers per model and size from all samples of a machine. fitted: MAPE on these; unseen: 10-fold."""

    machine: str
    samples: int
    fitted: float
    unseen: float


def leave_one_out(
    machines: Mapping[str, MeasuredMachine],
    counts: Mapping[int, Sequence[str] | None],
    repeats: int,
    news: Sequence[str] | None = None,
) -> Iterator[Figure]:
    """counts: numbers of samples of the new machine, and the rivals then, None for all; news: machines that are new in
    turn, by default all.
    """
    for new in machines if news is None else news:
        machine = machines[new]
        known = known_machines(machines, new, seed=0)
        for count, names in counts.items():
            mapes: dict[str, list[float]] = {}
            named = {name: rival for name, rival in rivals(known).items() if names is None or name in names}
            for shown, rest in _draws(machine, count, repeats):
                for name, (_, learn) in named.items():
                    mapes.setdefault(name, []).append(mape(learn(shown)(rest), rest))
            for name, (what, _) in named.items():
                yield Figure(new, name, what, count, tuple(mapes[name]))


class Rested(NamedTuple):
    """Our errors with a constant of the priors halved and doubled, by machine; means over the repeats."""

    constant: str
    mapes: Mapping[str, tuple[float, float]]


def rest_on_priors(machines: Mapping[str, MeasuredMachine], count: int, repeats: int) -> Iterator[Rested]:
    """count: of samples of the new machine."""
    for name, value in PRIORS._asdict().items():
        errors = []
        for factor in (0.5, 2.0):
            changed: dict[str, Any] = {name: _times(value, factor)}
            priors = PRIORS._replace(**changed)
            errors.append([_error_with(priors, machines, new, count, repeats) for new in machines])
        yield Rested(name, dict(zip(machines, zip(*errors, strict=True), strict=True)))


def _times(value: float | Strength, factor: float) -> float | Strength:
    return (factor * value[0], factor * value[1]) if isinstance(value, tuple) else factor * value


def _error_with(priors: Priors, machines: Mapping[str, MeasuredMachine], new: str, count: int, repeats: int) -> float:
    learner = unified_predictor(machines, new, 0, priors)
    errors = [mape(learned(learner, new, shown)(rest), rest) for shown, rest in _draws(machines[new], count, repeats)]
    return float(np.mean(errors))


def _draws(machine: MeasuredMachine, count: int, repeats: int) -> Iterator[tuple[Samples, Samples]]:
    """Samples that are shown, and the others."""
    rng = np.random.default_rng(count)
    for _ in range(repeats):
        order = rng.permutation(len(machine.samples)).tolist()
        yield [machine.samples[i] for i in order[:count]], [machine.samples[i] for i in order[count:]]


def whole_machines(machines: Mapping[str, MeasuredMachine]) -> list[WholeMachine]:
    """The reach of the form, however many samples there are."""
    found = []
    for name, machine in machines.items():
        samples = list(machine.samples)
        order, errors = np.random.default_rng(0).permutation(len(samples)), []
        for fold in range(_FOLDS):
            rest = [samples[i] for i in order[fold::_FOLDS]]
            shown = [samples[i] for k, i in enumerate(order) if k % _FOLDS != fold]
            errors.append(mape(two_numbers(shown)(rest), rest))
        found.append(
            WholeMachine(name, len(samples), mape(two_numbers(samples)(samples), samples), float(np.mean(errors)))
        )
    return found


def mape(predicted: Sequence[float], measured: Samples) -> float:
    """Mean of |predicted / measured − 1|."""
    ratios = np.array(predicted) / [sample.slowdown for sample in measured]
    return float(np.mean(np.abs(ratios - 1.0)))
