"""An independent account of one model's solo latencies: all that was measured, gone through from the start.

Plain ratios to the profile, not logarithms; every answer from the whole history, not from what is kept.
"""

from __future__ import annotations

from math import log
from statistics import median_low

from predictor.workload import ModelProfile
from tests.fakes.builders import MS

Scope = tuple[int, ...]
"""(group,) or (group, size)."""


def size_of(rows: int) -> int:
    """The leading four bits and zeros."""
    step = 1
    while rows // step > 16:
        step *= 2
    return rows // step * step if rows > 16 else rows


class SoloHistory:
    """None in a history: a doubt."""

    def __init__(self, profile: ModelProfile, measured_group: int | None, now_ns: int) -> None:
        self._profile, self._measured_group, self._joined_ns = profile, measured_group, now_ns
        self._all: list[float] = []
        self._histories: dict[Scope, list[tuple[int, float | None]]] = {}
        self._priors: dict[Scope, list[float]] = {}
        if measured_group is not None:
            self._histories[(measured_group,)], self._priors[(measured_group,)] = [], [1.0, 1.0]
        self._others_doubted_ns = now_ns - 1_000 * MS

    def knows(self, group: int) -> bool:
        """Well enough to refuse anybody."""
        return group == self._measured_group or len(self._histories.get((group,), [])) >= 3

    def _kept(self, group: int) -> bool:
        return (group,) in self._histories

    def solo_ns(self, rows: int, group: int | None) -> float:
        """group: None where it is not known."""
        if group is None or not self._kept(group):
            ratio = _believed([], list(self._all))
        else:
            scope = self._scope(rows, group)
            ratio = _believed(self._priors[scope], [said for _, said in self._histories[scope]])
        return min(1e13, self._profile.at(rows).solo_ns * ratio)

    def teaches(self, rows: int, group: int, exec_ns: int) -> bool:
        """True if a batch with co-runners is to be learned from."""
        if not self.knows(group):
            return True
        history = self._histories[self._scope(rows, group)]
        doubted = bool(history) and history[-1][1] is None
        return doubted or exec_ns < 0.8 * round(self.solo_ns(rows, group))

    def measured(self, rows: int, group: int, alone_ns: float, now_ns: int) -> None:
        ratio = alone_ns / self._profile.at(rows).solo_ns
        self._size(rows, group).append((now_ns, ratio))
        self._histories.setdefault((group,), []).append((now_ns, ratio))
        self._priors.setdefault((group,), [])
        self._all.append(ratio)

    def old(self, rows: int, group: int, now_ns: int) -> bool:
        """Neither measured nor doubted for a second."""
        if not self._kept(group):
            return now_ns - self._others_doubted_ns >= 1_000 * MS
        history = self._histories[self._scope(rows, group)]
        return now_ns - (history[-1][0] if history else self._joined_ns) >= 1_000 * MS

    def doubt(self, rows: int, group: int, now_ns: int) -> None:
        if self._kept(group):
            self._size(rows, group).append((now_ns, None))
        else:
            self._others_doubted_ns = now_ns

    def _scope(self, rows: int, group: int) -> Scope:
        scope = (group, size_of(rows))
        return scope if scope in self._histories else (group,)

    def _size(self, rows: int, group: int) -> list[tuple[int, float | None]]:
        scope = (group, size_of(rows))
        if scope not in self._histories:
            whole = [said for _, said in self._histories[(group,)]] if self._kept(group) else []
            prior = self._priors.get((group,), [])
            self._priors[scope] = [_believed(prior, whole)] * 2 if whole or prior else []
            self._histories[scope] = []
        return self._histories[scope]


def _believed(prior: list[float], history: list[float | None] | list[float]) -> float:
    """The lower median of the latest nine, of up to three the least, once it is off by 5 %; a doubt leaves but what was
    believed."""
    latest, believed, first = list(prior), prior[0] if prior else 1.0, True
    for said in history:
        if said is None:
            latest = [believed]
            continue
        latest = [*latest, said][-9:]
        found = median_low(latest) if len(latest) > 3 else min(latest)
        if first or abs(log(found / believed)) > 0.05:
            believed = found
        first = False
    return believed
