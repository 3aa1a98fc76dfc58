"""Lanes' time by model: at each moment, whose batches had the lanes, and whether all lanes were taken."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from backend.reporting.recording import LaneSpan


class Holder(NamedTuple):
    """A model whose batches have lanes; None: nobody. full: no lane is free."""

    model: str | None
    full: bool


class LaneTime:
    """Integrals over time: at each moment the time counts evenly for the models of the batches that run, so that the
    parts of any span add up to it. A question costs a search per model, however much happened meanwhile.
    """

    def __init__(self, spans: Sequence[LaneSpan], lanes: int) -> None:
        self._spans, self._lanes = spans, lanes
        self._curves = _curves(spans, lanes)

    def between(self, begin_ns: int, end_ns: int) -> dict[Holder, float]:
        """Nanoseconds of this span by holder; they add up to it."""
        found = {}
        for holder, curve in self._curves.items():
            if (span_ns := _at(curve, end_ns) - _at(curve, begin_ns)) > 0.0:
                found[holder] = span_ns
        idle_ns = end_ns - begin_ns - sum(found.values())
        if idle_ns >= 1.0:
            found[Holder(None, False)] = idle_ns
        return found

    def busy_share(self, begin_ns: int, end_ns: int) -> float:
        """Share of all lanes' time in this span that batches had."""
        overlaps_ns = (min(span.end_ns, end_ns) - max(span.begin_ns, begin_ns) for span in self._spans)
        return sum(max(0, overlap_ns) for overlap_ns in overlaps_ns) / (self._lanes * max(1, end_ns - begin_ns))


class _Curve(NamedTuple):
    """Instants, ascending, and a holder's time up to each; linear between."""

    at_ns: list[int]
    sum_ns: list[float]


def _at(curve: _Curve, at_ns: int) -> float:
    i = bisect_right(curve.at_ns, at_ns) - 1
    if i < 0:
        return 0.0
    before_ns = curve.sum_ns[i]
    if i + 1 == len(curve.at_ns):
        return before_ns
    share = (at_ns - curve.at_ns[i]) / (curve.at_ns[i + 1] - curve.at_ns[i])
    return before_ns + share * (curve.sum_ns[i + 1] - before_ns)


def _curves(spans: Sequence[LaneSpan], lanes: int) -> dict[Holder, _Curve]:
    events = [(span.begin_ns, 1, span.model) for span in spans] + [(span.end_ns, -1, span.model) for span in spans]
    events.sort(key=lambda event: event[0])
    running: Counter[str] = Counter()
    curves: defaultdict[Holder, _Curve] = defaultdict(lambda: _Curve([], []))
    since_ns, batches = 0, 0
    for at_ns, more, model in events:
        if at_ns > since_ns and batches:
            for name, count in running.items():
                if count:
                    _extend(curves[Holder(name, batches >= lanes)], since_ns, at_ns, count / batches)
        since_ns = at_ns
        running[model] += more
        batches += more
    return dict(curves)


def _extend(curve: _Curve, since_ns: int, at_ns: int, share: float) -> None:
    before_ns = curve.sum_ns[-1] if curve.sum_ns else 0.0
    if not curve.at_ns or curve.at_ns[-1] < since_ns:
        curve.at_ns.append(since_ns)
        curve.sum_ns.append(before_ns)
    curve.at_ns.append(at_ns)
    curve.sum_ns.append(before_ns + (at_ns - since_ns) * share)
