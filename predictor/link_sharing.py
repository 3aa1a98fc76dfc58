"""Transfers that share a link's bandwidth equally: when each ends, and its solo time.

Processor sharing: of n transfers each progresses at 1/n of its rate. With V(t) = ∫ dt / n(t) one with the solo time w
ends once V has grown by w since it began, and one that lasted from a to b has the solo time V(b) − V(a). All times in
nanoseconds. No learning here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise
from math import inf
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)


class Span(NamedTuple):
    """Begin and end of a transfer."""

    begin_ns: float
    end_ns: float


class Link(Generic[K]):
    """The transfers under way in one direction; times are of one clock and never go back."""

    def __init__(self) -> None:
        self._over: dict[K, float] = {}
        """V at each one's end."""
        self._v = 0.0
        self._now_ns = 0.0

    def __len__(self) -> int:
        return len(self._over)

    def __iter__(self) -> Iterator[K]:
        return iter(self._over)

    def __contains__(self, key: object) -> bool:
        return key in self._over

    def start(self, key: K, solo_ns: float, now_ns: float) -> None:
        """A transfer with this solo time begins. Raises ValueError on a key that is under way."""
        if key in self._over:
            raise ValueError(f"transfer {key!r} is under way already")
        self._advance(now_ns)
        self._over[key] = self._v + solo_ns

    def end(self, key: K, now_ns: float) -> None:
        """It ends, whether or not it was to."""
        self._advance(now_ns)
        del self._over[key]

    @property
    def next(self) -> tuple[float, K] | None:
        """The end that comes first if no other transfer starts, and its key."""
        if not self._over:
            return None
        key = min(self._over, key=self._over.__getitem__)
        return self._now_ns + max(0.0, self._over[key] - self._v) * len(self._over), key

    def ended(self, now_ns: float) -> Iterator[tuple[float, K]]:
        """Ends, one after the other, those that are done by then."""
        while (following := self.next) is not None and following[0] <= now_ns:
            at_ns, key = following
            self.end(key, at_ns)
            yield following

    def left_ns(self, now_ns: float) -> dict[K, float]:
        """Solo time that is left of each that is under way."""
        self._advance(now_ns)
        return {key: max(0.0, over - self._v) for key, over in self._over.items()}

    def _advance(self, now_ns: float) -> None:
        if self._over:
            self._v += (now_ns - self._now_ns) / len(self._over)
        else:
            self._v = 0.0  # so that no digit is lost however long the link is in use
        self._now_ns = now_ns


def finishes(transfers: Sequence[tuple[float, float]]) -> list[float]:
    """End of each, from (start, solo time) of all that will use the link, in any order."""
    link, ends = Link[int](), [0.0] * len(transfers)
    for i in sorted(range(len(transfers)), key=lambda i: transfers[i][0]):
        start_ns, solo_ns = transfers[i]
        for at_ns, j in link.ended(start_ns):
            ends[j] = at_ns
        link.start(i, solo_ns, start_ns)
    for at_ns, j in link.ended(inf):
        ends[j] = at_ns
    return ends


def solo_ns(own: Span, others: Sequence[Span]) -> float:
    """Solo time of a transfer that lasted so while these did: ∫ dt / n over it."""
    edges = {own.begin_ns, own.end_ns, *(t for other in others for t in other if own.begin_ns < t < own.end_ns)}
    return sum(
        (b - a) / (1 + sum(o.begin_ns <= a and b <= o.end_ns for o in others)) for a, b in pairwise(sorted(edges))
    )
