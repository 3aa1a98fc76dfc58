"""Plan of the study: which models, at which loads, on how many lanes, for how long. Data only."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from backend.load.arrivals import Traffic

TRAINED = ("resnet50", "roberta_base", "vgg19")
"""Models of the training set."""
COMPARED = ("offline", "sgd", "rls", "isochrone")
"""Learners of table 1; the first three are the paper's."""
OTHERS = ("yolov8n", "vit_b16", "convnext_base")
"""Models of test set 2: none of them is in the training set."""
_SHIFTED = (0.3, 1.0, 3.0)
"""Weights of the trained ones in test set 1."""
COPIED = "resnet50"
"""The model of the paper's figure 3."""
TRAINING, TEST_SETS = "training set", ("test set 1", "test set 2", "test set 3")
CPU_STEAL_MAX = 0.1
"""Share of the CPU that the host may take during a log before it is recorded once more."""
_SLO_MS = 10_000.0


def label(learner: str) -> str:
    """Name of a learner in tables and plots."""
    return {"sgd": "SGD", "rls": "RLS"}.get(learner, learner)


class StudyLog(msgspec.Struct, frozen=True):
    """One set of models under Poisson load. weights: of each model's rate; loads: one after the other.

    A load of 1 asks for as much work as would keep every core busy with batches of one at their profiled latency.
    """

    name: str
    weights: dict[str, float]
    loads: tuple[float, ...]
    seconds: float
    seed: int

    def traffic(self, load: float, solo_s: Mapping[str, float], cores: int) -> tuple[Traffic, ...]:
        """solo_s: latency of a batch of one, by model."""
        work = sum(weight * solo_s[model] for model, weight in self.weights.items())
        rate = load * cores / work
        return tuple(Traffic(model, rate * weight, _SLO_MS) for model, weight in self.weights.items())


class StudyPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """lanes: each log is recorded with each. tasks: numbers of copies of `COPIED` that share the load.

    attempts: at a log that the host disturbs.

    task_load: as in `StudyLog`, of one core, as sequential execution has. profile_seconds: per entry at most.
    warm_up_seconds: of load before each log and each server's tasks.
    """

    lanes: tuple[int, ...]
    logs: tuple[StudyLog, ...]
    batch_sizes: tuple[int, ...]
    profile_seconds: float
    tasks: tuple[int, ...]
    task_load: float
    task_seconds: float
    attempts: int
    warm_up_seconds: float = 2.0

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(model for log in self.logs for model in log.weights))


def plan(*, quick: bool) -> StudyPlan:
    """The study in full, or in a form that only shows that all of it works."""
    if quick:
        few = logs((0.7,), 1.0, TRAINED[::2], OTHERS[:1])
        return StudyPlan((2, 4), few, (1, 8), 0.2, (1, 2), 0.7, 1.0, 1, warm_up_seconds=0.5)
    whole = logs((0.3, 0.5, 0.7, 0.9, 1.1), 24.0)
    return StudyPlan((2, 4), whole, tuple(range(1, 9)), 2.0, (1, 2, 3, 4, 5, 6), 0.8, 12.0, 2)


def logs(
    loads: tuple[float, ...], seconds: float, trained: tuple[str, ...] = TRAINED, others: tuple[str, ...] = OTHERS
) -> tuple[StudyLog, ...]:
    """The paper's training set and its three test sets."""

    other_loads = tuple(load + 0.1 for load in reversed(loads))
    sets = (
        (TRAINING, dict.fromkeys(trained, 1.0), loads),
        (TEST_SETS[0], dict(zip(trained, _SHIFTED, strict=False)), other_loads),
        (TEST_SETS[1], dict.fromkeys(others, 1.0), loads),
        (TEST_SETS[2], dict.fromkeys(trained + others, 1.0), loads),
    )
    return tuple(StudyLog(name, weights, own, seconds, 10 * i + 1) for i, (name, weights, own) in enumerate(sets))
