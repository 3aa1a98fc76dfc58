"""Features of a batch and of its co-runners: the one place for serving, profiling and evaluation.

Pure functions of loads and overlaps. Nothing of any learner must enter here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite, log, log2
from typing import NamedTuple

from predictor.workload import Load

PARTS = ("count", "compute", "l2", "dram", "log2_solo_ms", "log2_batch")
"""What a batch adds to every other's exposure, in order. Additive over batches."""

FeatureSums = tuple[float, float, float, float, float, float]
Shares = tuple[float, float, float]

NO_FEATURES: FeatureSums = (0.0,) * 6
_NO_OVERDRAFT: Shares = (0.0, 0.0, 0.0)


class Own(NamedTuple):
    """The batch itself. model: any name that stays the same from batch to batch; batch_size: rows."""

    model: str
    batch_size: int
    load: Load


class CoRunner(NamedTuple):
    """A co-runner of some batch. begin, end: 0..1 of *that* batch's execution. same_core: both shared one core; where
    each lane has its own, or lanes are not cores, none does.
    """

    model: str
    batch_size: int
    load: Load
    begin: float = 0.0
    end: float = 1.0
    same_core: bool = False


class Exposure(NamedTuple):
    """A batch's co-runners, averaged over its own execution."""

    sums: FeatureSums
    """Time mean of the co-runners' summed `feature_parts`."""
    overdraft: Shares
    """Time mean of how far its own and its co-runners' shares together exceed the device: max(0, own + Σ − 1)."""
    overlaps: tuple[tuple[Own, float], ...] = ()
    """(batch, overlap 0..1 summed over its like) of the co-runners, where known."""
    sharing: float = 0.0
    """Log slowdown by core sharing alone: −log of its mean share of the core."""


@lru_cache(4096)
def feature_parts(batch_size: int, load: Load) -> FeatureSums:
    """A running batch's part of every other's `Exposure.sums` while both run; `PARTS` names what it is made of."""
    return (1.0, load.compute, load.l2, load.dram, log2(max(load.solo_ns, 1) / 1e6), log2(max(batch_size, 1)))


def overdraft(own: Load, sums: FeatureSums) -> Shares:
    """Demand of a set of batches beyond the device, per share of `Load.features`."""
    return (
        max(0.0, own.compute + sums[1] - 1.0),
        max(0.0, own.l2 + sums[2] - 1.0),
        max(0.0, own.dram + sums[3] - 1.0),
    )


def exposure_of_sums(own: Own, sums: FeatureSums) -> Exposure:
    """From the running integrals alone, where the co-runners themselves are not known any more."""
    return Exposure(sums, overdraft(own.load, sums) if sums[0] else _NO_OVERDRAFT)


def exposure(own: Own, co_runners: Sequence[CoRunner]) -> Exposure:
    """Exact time means over the batch's execution, for any number of partly overlapping co-runners."""
    kinds = [Own(n.model, n.batch_size, n.load) for n in co_runners]
    begins, ends = [n.begin for n in co_runners], [n.end for n in co_runners]
    return exposure_between(own, kinds, begins, ends, [i for i, n in enumerate(co_runners) if n.same_core])


def exposure_between(
    own: Own, co_runners: Sequence[Own], begins: Sequence[float], ends: Sequence[float], on_core: Sequence[int]
) -> Exposure:
    """The same of columns: begins, ends: as `CoRunner` has them; on_core: indices of those that shared its core."""
    if not co_runners:
        return Exposure(NO_FEATURES, _NO_OVERDRAFT)
    by_kind: dict[Own, float] = {}
    for kind, begin, end in zip(co_runners, begins, ends, strict=True):
        by_kind[kind] = by_kind.get(kind, 0.0) + (end - begin)
    sums = _weighted([feature_parts(kind.batch_size, kind.load) for kind in by_kind], [*by_kind.values()])
    if max(begins) <= 0.0 and min(ends) >= 1.0:
        excess = overdraft(own.load, sums)
    else:
        excess = _mean_overdraft(own.load, [kind.load for kind in co_runners], begins, ends)
    sharing = _sharing([begins[i] for i in on_core], [ends[i] for i in on_core]) if on_core else 0.0
    return Exposure(sums, excess, tuple(by_kind.items()), sharing)


def static_exposure(own: Own, co_runners: Sequence[CoRunner]) -> Exposure:
    """The paper's first baseline feature: those there at launch, as if nothing changed (arXiv 2512.18725, 4.2 (1))."""
    return exposure(own, [n._replace(end=1.0) for n in co_runners if n.begin <= 0.0])


def ewma_exposure(own: Own, co_runners: Sequence[CoRunner], alpha: float) -> Exposure:
    """The paper's second: R ← α·X + (1 − α)·R at each arrival and departure, blind to durations (4.2 (2))."""
    parts = [feature_parts(n.batch_size, n.load) for n in co_runners]
    instants = sorted({t for n in co_runners for t in (n.begin, n.end) if 0.0 < t < 1.0})
    smoothed = _present(co_runners, parts, 0.0)
    for t in instants:
        smoothed = _weighted([_present(co_runners, parts, t), smoothed], [alpha, 1.0 - alpha])
    return exposure_of_sums(own, smoothed)


def check(own: Own, seen: Exposure, slowdown: float | None = None) -> None:
    """Raises ValueError on anything that is no number; a slowdown must be positive too."""
    load = own.load
    if not isfinite(load.compute + load.l2 + load.dram + sum(seen.sums) + sum(seen.overdraft) + seen.sharing):
        features = (*load.features, *seen.sums, *seen.overdraft, seen.sharing)
        raise ValueError(f"cannot learn from or predict with features that are no finite numbers: {features}")
    if slowdown is not None and not (isfinite(slowdown) and slowdown > 0.0):
        raise ValueError(f"cannot learn from slowdown {slowdown}")


def _present(co_runners: Sequence[CoRunner], parts: Sequence[FeatureSums], at: float) -> FeatureSums:
    return _weighted(parts, [1.0 if n.begin <= at < n.end else 0.0 for n in co_runners])


def _weighted(parts: Sequence[FeatureSums], weights: Sequence[float]) -> FeatureSums:
    a = b = c = d = e = f = 0.0
    for part, weight in zip(parts, weights, strict=True):
        a += weight * part[0]
        b += weight * part[1]
        c += weight * part[2]
        d += weight * part[3]
        e += weight * part[4]
        f += weight * part[5]
    return (a, b, c, d, e, f)


def _mean_overdraft(own: Load, loads: Sequence[Load], begins: Sequence[float], ends: Sequence[float]) -> Shares:
    """Σ over the stretches between arrivals and departures."""
    compute, l2, dram = own.compute - 1.0, own.l2 - 1.0, own.dram - 1.0
    events = []
    for load, begin, end in zip(loads, begins, ends, strict=True):
        x, y, z = load.compute, load.l2, load.dram
        if begin > 0.0:
            events.append((begin, x, y, z))
        else:
            compute, l2, dram = compute + x, l2 + y, dram + z
        if end < 1.0:
            events.append((end, -x, -y, -z))
    events.sort()
    events.append((1.0, 0.0, 0.0, 0.0))
    a = b = c = at = 0.0
    for instant, more_compute, more_l2, more_dram in events:
        if (span := instant - at) > 0.0:
            a += span * compute if compute > 0.0 else 0.0
            b += span * l2 if l2 > 0.0 else 0.0
            c += span * dram if dram > 0.0 else 0.0
            at = instant
        compute += more_compute
        l2 += more_l2
        dram += more_dram
    return (a, b, c)


def _sharing(begins: Sequence[float], ends: Sequence[float]) -> float:
    """A core is divided evenly among those who are on it: −log of the mean of 1 / their number."""
    share, at, there = 0.0, 0.0, 1
    for instant, leaves in sorted([*((begin, False) for begin in begins), *((end, True) for end in ends)]):
        share += (instant - at) / there
        at = instant
        there += -1 if leaves else 1
    return -log(share + (1.0 - at))  # after the last departure it has the core to itself
