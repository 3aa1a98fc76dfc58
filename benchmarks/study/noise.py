"""Noise of a log, which no predictor can explain: between twins, and between batches that are nearly twins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.study.ceiling import co_runner_shares
from predictor.samples import Sample, co_runners_of

Vector = NDArray[np.float64]

NEAREST = 10
"""Evans and Jones recommend ten."""
_STEPS = 8
_APART = 1e-6
"""Distance at which batches with equal co-runners are put at random: else all would be compared with the same ten."""


class Floor(NamedTuple):
    """Differences of identical co-locations: no predictor that sees only who ran beside whom gets below.

    mse: pooled variance within groups; relative: median distance to the group's median; share: of batches in a group;
    of_twins: learners' MSE on the batches in a group, which are easier than the others.
    """

    mse: float
    relative: float
    share: float
    of_twins: dict[str, float]


class Noise(NamedTuple):
    """The Gamma test's estimate of the variance that remains. share: of batches that it is of; of_these: learners' MSE
    on them.
    """

    mse: float
    share: float
    of_these: dict[str, float]


def noise_floor(samples: Sequence[Sample], errors: Mapping[str, Vector]) -> Floor:
    """Floor of batches whose model, size and co-runners, by model, size and eighths of overlap, are equal.

    errors: (samples,) squared ones by learner, in the order of the batches' starts.
    """
    ordered = sorted(samples, key=lambda s: s.start_ns)
    groups = _grouped(map(_co_location, ordered))
    slowdowns = np.array([s.slowdown for s in ordered])
    twins = [group for group in groups if len(group) > 1]
    if not twins:
        return Floor(0.0, 0.0, 0.0, dict.fromkeys(errors, 0.0))
    repeated = [slowdowns[group] for group in twins]
    squares = sum(float(np.sum((g - g.mean()) ** 2)) for g in repeated)
    freedom = sum(len(g) - 1 for g in repeated)
    relative = np.concatenate([np.abs(g - np.median(g)) / g for g in repeated])
    every = np.concatenate(twins)
    return Floor(squares / freedom, float(np.median(relative)), len(every) / len(samples), _mean(errors, every))


def gamma_test(samples: Sequence[Sample], errors: Mapping[str, Vector]) -> Noise:
    """Estimates what is left of half the squared difference of two batches as their co-runners grow alike.

    Half that difference is averaged over each batch and its k-th nearest, for k up to `NEAREST`; the line through it
    over the mean squared distance has the noise as its intercept (Stefánsson, Končar and Jones, 1997; Evans and Jones,
    2002). Distance: Euclidean, of the shares of its execution that each model, and no, one, two … co-runners, ran
    beside it, on its core and elsewhere, and of its place in the log, 0..1, since a machine has its slow spells.

    errors: as `noise_floor`'s.
    """
    ordered = sorted(samples, key=lambda s: s.start_ns)
    models = sorted({c.model for s in ordered for c in s.co_runners})
    place = np.linspace(0.0, 1.0, len(ordered))
    described = np.array([[*_co_runner_shares(s, models), at] for s, at in zip(ordered, place, strict=True)])
    described += np.random.default_rng(0).uniform(0.0, _APART, described.shape)
    slowdowns = np.array([s.slowdown for s in ordered])
    kinds = [kind for kind in _grouped((s.model, s.batch_size) for s in ordered) if len(kind) > NEAREST]
    if not kinds:
        return Noise(0.0, 0.0, dict.fromkeys(errors, 0.0))
    near = [_nearest(described[kind]) for kind in kinds]
    distances = np.concatenate([distance for distance, _ in near])
    differences = np.concatenate(
        [slowdowns[kind][others] - slowdowns[kind, None] for kind, (_, others) in zip(kinds, near, strict=True)]
    )
    deltas, gammas = np.mean(distances**2, axis=0), np.mean(differences**2, axis=0) / 2
    at_zero = float(np.polyfit(deltas, gammas, 1)[1])
    every = np.concatenate(kinds)
    return Noise(max(0.0, at_zero), len(every) / len(samples), _mean(errors, every))


def _co_location(sample: Sample) -> tuple[object, ...]:
    """Equal for equal own model and size, co-runners' models, sizes, cores and overlaps to the eighth."""
    rounded = [(n.model, n.batch_size, round((n.end - n.begin) * _STEPS), n.same_core) for n in sample.co_runners]
    return (sample.model, sample.batch_size, *sorted(n for n in rounded if n[2]))


def _grouped(keys: Iterable[object]) -> list[NDArray[np.int64]]:
    groups: dict[object, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        groups[key].append(i)
    return [np.array(group) for group in groups.values()]


def _co_runner_shares(sample: Sample, models: Sequence[str]) -> list[float]:
    neighbours = co_runners_of(sample)
    cores = ([n for n in neighbours if n.same_core == here] for here in (True, False))
    return [share for some in cores for share in co_runner_shares(some, models)]


def _nearest(described: Vector) -> tuple[Vector, NDArray[np.int64]]:
    """(batches, NEAREST) distances, and which batches they are of. A batch is not its own neighbour."""
    with threadpool_limits(1):
        distances, others = NearestNeighbors(n_neighbors=NEAREST).fit(described).kneighbors()
    return distances, others


def _mean(errors: Mapping[str, Vector], batches: NDArray[np.int64]) -> dict[str, float]:
    return {learner: float(squared[batches].mean()) for learner, squared in errors.items()}
