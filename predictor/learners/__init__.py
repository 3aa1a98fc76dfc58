"""Learners of slowdown behind one contract, a file each; `LEARNERS` makes a fresh one by its name."""

from __future__ import annotations

from collections.abc import Callable

from predictor.learners.baselines import CountMean, Mean, NoInterference
from predictor.learners.isochrone import Isochrone
from predictor.learners.isochrone_full import IsochroneFull
from predictor.learners.learner import Learner
from predictor.learners.linear import Offline, Rls, Sgd

LEARNERS: dict[str, Callable[[], Learner]] = {
    learner.name: learner for learner in (NoInterference, Mean, CountMean, Offline, Sgd, Rls, Isochrone, IsochroneFull)
}

__all__ = ["LEARNERS", "Learner"]
