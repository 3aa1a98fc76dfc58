"""Figures over draws: means, and differences that keep their sign. Nothing here measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import NamedTuple, TypeVar

from benchmarks.gpu_emulated.runs import RunFigures

T = TypeVar("T")
ByDraw = Mapping[int, T]


class Difference(NamedTuple):
    """One minus another over the draws that both have. above, below: number of draws with that sign."""

    mean: float
    least: float
    most: float
    above: int
    below: int
    draws: int

    def keeps_sign(self, signs: int) -> bool:
        """True where so many draws, of which there have to be as many, agree."""
        return max(self.above, self.below) >= signs


def difference(one: ByDraw[float], other: ByDraw[float]) -> Difference | None:
    """Compare draw by draw; None where they have none in common."""
    found = [one[draw] - other[draw] for draw in sorted(one.keys() & other.keys())]
    if not found:
        return None
    above, below = sum(d > 0.0 for d in found), sum(d < 0.0 for d in found)
    return Difference(fmean(found), min(found), max(found), above, below, len(found))


def runs_of(
    runs: Iterable[RunFigures], rival: str, load: float, lanes: int | None = None, scenario: str | None = None
) -> dict[int, RunFigures]:
    """Runs by draw. lanes, scenario: None: whatever they are."""
    return {
        r.draw: r
        for r in runs
        if (r.rival, r.load) == (rival, load) and lanes in (None, r.lanes) and scenario in (None, r.scenario)
    }


def values(found: Mapping[int, T], of: Callable[[T], float]) -> dict[int, float]:
    """A figure of each draw."""
    return {draw: of(figures) for draw, figures in found.items()}


def mean_kept(found: Mapping[int, RunFigures]) -> str:
    """Percent of deadlines, mean over draws (class 1 / class 2 / …)."""
    if not found:
        return "–"
    classes = sorted({c for r in found.values() for c in r.requests}, key=int)
    shares = " / ".join(f"{100 * fmean(r.kept(c) for r in found.values()):.0f}" for c in classes)
    every = f"{100 * fmean(r.kept() for r in found.values()):.1f}"
    return f"{every} ({shares})" if len(classes) > 1 else every


def shown_difference(found: Difference | None, signs: int) -> str:
    """Mean (least to most) where it keeps its sign, else how many draws have which."""
    if found is None:
        return "–"
    if not found.keeps_sign(min(signs, found.draws)):
        return f"no sign ({found.above} above, {found.below} below)"
    return f"{found.mean:+.1f} ({found.least:+.1f} to {found.most:+.1f})"
