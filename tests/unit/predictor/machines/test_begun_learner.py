"""The learner that decides launches, begun from what other machines say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from predictor import state_file
from predictor.bound import UpperBound
from predictor.features import CoRunner, Own, exposure
from predictor.learners.isochrone import Isochrone
from predictor.machines.machine_predictor import MachinePredictor
from predictor.machines.peaks import MachinePeaks
from predictor.transfers import TransferModel
from predictor.workload import Load

KINDS = [Own(model, size, Load(2_000_000 * size, 0.4, 0.2, 0.1)) for model in "abc" for size in (1, 4)]
SENSITIVITY = dict(zip(KINDS, (0.3, 0.5, 0.8, 1.2, 0.2, 0.4), strict=True))
PRESSURE = dict(zip(KINDS, (0.5, 0.9, 0.4, 0.6, 1.2, 2.0), strict=True))


def known() -> MachinePredictor:
    """Knows one machine well, and of the other that it is there."""
    predictor = MachinePredictor()
    for machine in ("old", "new"):
        predictor.add_machine(machine, MachinePeaks(100.0, 1_000.0))
    for own in KINDS:
        for other in KINDS:
            for _ in range(5):
                predictor.learn_one("old", own, [(other, 1.0)], 1.0 + SENSITIVITY[own] * PRESSURE[other])
    predictor.renew()
    return predictor


def begun() -> Isochrone:
    predictor, learner = known(), Isochrone()
    learner.expect({own: predictor.interference("new", own) for own in KINDS})
    return learner


def error(learner: Isochrone) -> float:
    ratios = [
        learner.predict_one(own, exposure(own, [CoRunner(*other)])) / (1.0 + SENSITIVITY[own] * PRESSURE[other])
        for own in KINDS
        for other in KINDS
    ]
    return float(np.mean(np.abs(np.array(ratios) - 1.0)))


def test_a_learner_begins_with_what_is_known_from_another_machine() -> None:
    assert error(begun()) < 0.06
    assert error(Isochrone()) > 0.15


def test_its_own_samples_correct_what_it_began_with() -> None:
    learner = begun()
    own, other = KINDS[0], KINDS[5]
    seen = exposure(own, [CoRunner(*other)])
    before = learner.predict_one(own, seen)
    for _ in range(50):
        learner.learn_one(own, seen, 2.0 * before)
    assert learner.predict_one(own, seen) == pytest.approx(2.0 * before, rel=0.1)


def test_a_scheduler_starts_from_it_through_its_state_file(tmp_path: Path) -> None:
    learner, path = begun(), tmp_path / "cuda:0.state"
    state_file.save(path, state_file.encode(state_file.Learned(learner, UpperBound(), TransferModel())))
    assert error(state_file.load(path).learner) == pytest.approx(error(learner))
    assert list(tmp_path.iterdir()) == [path]


def test_expectations_after_samples_are_refused_in_words() -> None:
    learner, predictor = begun(), known()
    learner.learn_one(KINDS[0], exposure(KINDS[0], [CoRunner(*KINDS[1])]), 1.5)
    before = learner.state()
    with pytest.raises(ValueError, match="expectations come before samples, but 1 were learned from"):
        learner.expect({own: predictor.interference("new", own) for own in KINDS})
    assert learner.state() == before


def test_nothing_to_expect_changes_nothing() -> None:
    learner = Isochrone()
    learner.expect({})
    assert learner.state() == Isochrone().state()
