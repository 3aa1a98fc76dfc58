"""Figures over seeds: means with standard errors, and differences seed by seed. Nothing here measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import nan, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from benchmarks.fleet.fleet_run import SnapshotTiming
from benchmarks.fleet.runs import FleetFigures

BySeed = Mapping[int, float]


class SeedSpread(NamedTuple):
    """A mean over seeds, its standard error, how many seeds are above 0, and how many there are."""

    mean: float
    error: float
    above: int
    seeds: int


def spread(values: Iterable[float]) -> SeedSpread:
    """NaN where there are too few values to tell."""
    found = list(values)
    error = stdev(found) / sqrt(len(found)) if len(found) > 1 else nan
    return SeedSpread(fmean(found) if found else nan, error, sum(value > 0.0 for value in found), len(found))


def differences(one: BySeed, other: BySeed) -> list[float]:
    """One minus the other, for the seeds that both have."""
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def ratios(one: BySeed, other: BySeed) -> list[float]:
    """One over the other, for the seeds that both have; without those where the other is 0."""
    return [one[seed] / other[seed] for seed in sorted(one.keys() & other.keys()) if other[seed]]


def by_seed(
    found: Iterable[FleetFigures],
    of: Callable[[FleetFigures], float],
    router: str,
    load: float,
    timing: SnapshotTiming | None = None,
) -> dict[int, float]:
    """A figure of a router's runs at a load, by seed. timing: of the snapshots; None: whatever it is."""
    return {
        run.case.seed: of(run)
        for run in found
        if (run.case.router, run.case.load) == (router, load) and timing in (None, run.case.timing)
    }


def kept_percent(run: FleetFigures) -> float:
    """Percent of deadlines kept."""
    return 100.0 * run.kept()


def degradation(run: FleetFigures) -> float:
    """Median of latency over solo latency."""
    return run.degradation_p50


def goodput(run: FleetFigures) -> float:
    """Answers in time per second."""
    return run.goodput_per_s


def median_ms(run: FleetFigures) -> float:
    """Median latency."""
    return run.p50_ms


def shown(found: SeedSpread, digits: int = 1, signs: bool = False) -> str:
    """Mean ± standard error; signs: of a difference, with its sign and the number of seeds above 0."""
    if not found.seeds:
        return "–"
    sign = "+" if signs else ""
    error = "" if found.error != found.error else f" ± {found.error:.{digits}f}"
    seeds = f" ({found.above} of {found.seeds})" if signs else ""
    return f"{found.mean:{sign}.{digits}f}{error}{seeds}"
