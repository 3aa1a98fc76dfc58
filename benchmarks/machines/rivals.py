"""Ways to predict slowdowns on a new machine, from other machines' samples and a few of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from math import exp
from typing import NamedTuple

import numpy as np

from benchmarks.machines.open_data import Measured, MeasuredMachine
from predictor.features import CoRunner, Exposure, Own, exposure
from predictor.learners.isochrone import Isochrone
from predictor.machines.machine_predictor import MachinePredictor
from predictor.machines.peaks import MachinePeaks
from predictor.machines.priors import PRIORS, Priors
from predictor.workload import Load

OURS, ALONE = "isochrone, machines", "alone"
_ANY = "any"
_SCALES = np.linspace(-3.0, 3.0, 121)

Samples = Sequence[Measured]
Prediction = Callable[[Samples], list[float]]
"""Slowdowns of what was measured."""
Rival = Callable[[Samples], Prediction]
"""Learns from a new machine's samples."""


def _whole(own: Own) -> Own:
    return own


def _timeless(own: Own) -> Own:
    return own._replace(load=Load(0, *own.load.features))


class NewMachine(NamedTuple):
    """The new machine, and learners that have seen all samples of all others, in one random order."""

    name: str
    new: MeasuredMachine
    unified: MachinePredictor
    without_solo: MachinePredictor
    blind: MachinePredictor
    deciding: Isochrone


def known_machines(machines: Mapping[str, MeasuredMachine], new: str, seed: int) -> NewMachine:
    """Learn all that is known before the new machine comes."""
    blind, deciding = MachinePredictor(), Isochrone()
    blind.add_machine(_ANY, MachinePeaks())
    for _, (own, co_runners, slowdown) in _by_turns(machines, new, seed):
        blind.learn_one(_ANY, own, co_runners, slowdown)
        deciding.learn_one(own, _exposure(own, co_runners), slowdown)
    blind.renew()
    unified, without_solo = (unified_predictor(machines, new, seed, seen_as=as_seen) for as_seen in (_whole, _timeless))
    return NewMachine(new, machines[new], unified, without_solo, blind, deciding)


def unified_predictor(
    machines: Mapping[str, MeasuredMachine],
    new: str,
    seed: int,
    priors: Priors = PRIORS,
    seen_as: Callable[[Own], Own] = _whole,
) -> MachinePredictor:
    """This project's predictor, which knows of the new machine its peaks and solo latencies."""
    learner = MachinePredictor(priors)
    for name in (*(name for name in machines if name != new), new):
        learner.add_machine(name, machines[name].peaks)
    for name, (own, co_runners, slowdown) in _by_turns(machines, new, seed):
        learner.learn_one(name, seen_as(own), [(seen_as(other), t) for other, t in co_runners], slowdown)
    learner.renew()
    for own in machines[new].solo:
        learner.add_model(new, seen_as(own))
    return learner


def _by_turns(machines: Mapping[str, MeasuredMachine], new: str, seed: int) -> list[tuple[str, Measured]]:
    """All samples of all machines but the new one, in a random order."""
    samples = [(name, sample) for name, machine in machines.items() if name != new for sample in machine.samples]
    return [samples[i] for i in np.random.default_rng(seed).permutation(len(samples))]


def rivals(known: NewMachine) -> dict[str, tuple[str, Rival]]:
    """By name, with a description."""
    return {
        OURS: ("this predictor", lambda samples: learned(known.unified, known.name, samples)),
        "without solo latencies": (
            "this predictor, blind to how long batches take alone there",
            lambda samples: learned(known.without_solo, known.name, samples, _timeless),
        ),
        "without its samples": (
            "this predictor before any sample of the new machine",
            lambda _: learned(known.unified, known.name, ()),
        ),
        ALONE: (
            "two numbers per model and size, from the new machine's samples alone",
            _alone,
        ),
        "no machines": (
            "two numbers per model and size, of all machines together",
            lambda _: learned(known.blind, _ANY, ()),
        ),
        "no machines, learning on": (
            "as *no machines*, and the new machine's samples after",
            lambda samples: learned(known.blind, _ANY, samples),
        ),
        "no machines, scaled": (
            "as *no machines*, but what co-runners add times a factor fitted to the new machine's samples",
            lambda samples: _scaled(known.blind, samples),
        ),
        "deciding learner alone": (
            "what launches are decided by, from the new machine's samples alone",
            lambda samples: _decide(Isochrone(), samples),
        ),
        "deciding learner, no machines": (
            "what launches are decided by, from all machines' samples, the new one's last",
            lambda samples: _decide(known.deciding, samples),
        ),
        "deciding learner, begun from machines": (
            "what launches are decided by, begun from *without its samples*, then the new machine's samples",
            lambda samples: _decide(_begun(known), samples),
        ),
        "median": ("the median slowdown of the new machine's samples", _median),
    }


def two_numbers(samples: Samples) -> Prediction:
    """Two numbers per model and size and nothing else, fitted to these samples, for predictions of the same."""
    learner = MachinePredictor()
    learner.add_machine(_ANY, MachinePeaks())
    for sample in samples:
        learner.learn_one(_ANY, *sample)
    learner.renew()

    def predict(asked: Samples) -> list[float]:
        numbers = {
            own: learner.interference(_ANY, own) for own in {own for sample in asked for own in _batches(sample)}
        }
        return [
            1.0 + sum(t * exp(numbers[own].log_sensitivity + numbers[other].log_pressure) for other, t in co_runners)
            for own, co_runners, _ in asked
        ]

    return predict


def _batches(sample: Measured) -> list[Own]:
    return [sample.own, *(other for other, _ in sample.co_runners)]


def learned(
    learner: MachinePredictor, machine: str, samples: Samples, seen_as: Callable[[Own], Own] = _whole
) -> Prediction:
    """seen_as: what the learner gets to know of a batch."""
    if samples:
        learner = deepcopy(learner)
        for own, co_runners, slowdown in samples:
            learner.learn_one(machine, seen_as(own), [(seen_as(other), t) for other, t in co_runners], slowdown)
        learner.renew()
    return lambda asked: [
        learner.predict_one(machine, seen_as(own), [(seen_as(other), t) for other, t in co_runners])
        for own, co_runners, _ in asked
    ]


def _alone(samples: Samples) -> Prediction:
    learner = MachinePredictor()
    learner.add_machine(_ANY, MachinePeaks())
    return learned(learner, _ANY, samples)


def _scaled(blind: MachinePredictor, samples: Samples) -> Prediction:
    predict = learned(blind, _ANY, ())
    adds = np.array(predict(samples)) - 1.0
    measured = np.log([sample.slowdown for sample in samples])
    errors = [float(np.sum((np.log1p(exp(scale) * adds) - measured) ** 2)) for scale in _SCALES]
    factor = exp(float(_SCALES[int(np.argmin(errors))]))
    return lambda asked: [1.0 + factor * (slowdown - 1.0) for slowdown in predict(asked)]


def _decide(learner: Isochrone, samples: Samples) -> Prediction:
    learner = deepcopy(learner)
    for own, co_runners, slowdown in samples:
        learner.learn_one(own, _exposure(own, co_runners), slowdown)
    learner.reset_drift()
    return lambda asked: [learner.predict_one(own, _exposure(own, co_runners)) for own, co_runners, _ in asked]


def _begun(known: NewMachine) -> Isochrone:
    learner = Isochrone()
    learner.expect({own: known.unified.interference(known.name, own) for own in known.new.solo})
    return learner


def _median(samples: Samples) -> Prediction:
    middle = float(np.median([sample.slowdown for sample in samples]))
    return lambda asked: [middle] * len(asked)


def _exposure(own: Own, co_runners: Sequence[tuple[Own, float]]) -> Exposure:
    """Co-runners that are there all the time."""
    return exposure(own, [CoRunner(*other) for other, copies in co_runners for _ in range(round(copies))])
