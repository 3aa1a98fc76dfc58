"""One model's waiting requests in the order in which they are to be served. No clock, no decisions.

Launch order is a single number, the rank: due time plus a fixed time per class, so that a low class is served
after a higher one but, having waited that much longer, before it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from math import inf
from typing import TypeVar

from backend.scheduler.messages import Request

CLASS_NS = 1_000_000_000
"""A class is worth this much time: a request of class 2 that is due a second earlier goes first."""
BEST_EFFORT_NS = 1_000_000_000
"""A request without a deadline is ordered as if it were due this long after its arrival."""

_Ranked = tuple[int, int]
_Key = TypeVar("_Key", tuple[int, int], tuple[float, int])


def rank_ns(request: Request) -> int:
    """Rank of a request, the lowest served first: by class within a second, then by deadline."""
    due = request.deadline_ns if request.deadline_ns is not None else request.arrival_ns + BEST_EFFORT_NS
    return due + (request.priority - 1) * CLASS_NS


class WaitingQueue:
    """Waiting requests of one model: those that can still make it, by rank, and the late ones, by arrival.

    in_order: ranks are arrival times, as in a stock dynamic batcher.
    """

    def __init__(self, *, in_order: bool = False) -> None:
        self._in_order = in_order
        self._ranked: list[_Ranked] = []
        self._latest: list[tuple[float, int]] = []
        self._late_after_ns: dict[int, float] = {}
        self._late: deque[int] = deque()
        self._requests: dict[int, Request] = {}
        self.rows: dict[int, int] = {}
        """Rows that wait, by class."""

    def __len__(self) -> int:
        return len(self._requests)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._requests

    def ids(self) -> Iterable[int]:
        """All waiting ids, in no order."""
        return self._requests.keys()

    def rank(self, request: Request) -> int:
        """The number that orders this queue."""
        return request.arrival_ns if self._in_order else rank_ns(request)

    def add(self, request: Request, late_after_ns: float = inf) -> None:
        """Queue a request. late_after_ns: when it would have to be launched, as is known now.

        Raises ValueError on an id that already waits.
        """
        if request.id in self._requests:
            raise ValueError(f"request {request.id} already waits")
        self._requests[request.id] = request
        self.rows[request.priority] = self.rows.get(request.priority, 0) + request.rows
        insort(self._ranked, (self.rank(request), request.id))
        if late_after_ns < inf:
            insort(self._latest, (late_after_ns, request.id))
            self._late_after_ns[request.id] = late_after_ns

    def remove(self, request_id: int) -> None:
        """Take out a request that waits."""
        request = self._requests.pop(request_id)
        self.rows[request.priority] -= request.rows
        if not self.rows[request.priority]:
            del self.rows[request.priority]
        if not self._unrank(request):
            self._late.remove(request_id)

    def head(self) -> Request | None:
        """The first of those that can still make it."""
        return self._requests[self._ranked[0][1]] if self._ranked else None

    def head_rank(self) -> int | None:
        """The rank of `head`."""
        return self._ranked[0][0] if self._ranked else None

    def late_head(self) -> Request | None:
        """The oldest of the late ones."""
        return self._requests[self._late[0]] if self._late else None

    def by_rank(self) -> Iterator[Request]:
        """Those that can still make it, in order."""
        for _, request_id in self._ranked:
            yield self._requests[request_id]

    def by_lateness(self) -> Iterator[Request]:
        """The late ones, oldest first."""
        for request_id in self._late:
            yield self._requests[request_id]

    def first_late(self) -> Request | None:
        """The one that has to be launched first of those that can still make it, whatever its class."""
        return self._requests[self._latest[0][1]] if self._latest else None

    def postpone(self, request: Request, late_after_ns: float) -> bool:
        """Note that a request becomes late only then, as is known now; False where that is no later."""
        before_ns = self._late_after_ns[request.id]
        if late_after_ns <= before_ns:
            return False
        _discard(self._latest, (before_ns, request.id))
        insort(self._latest, (late_after_ns, request.id))
        self._late_after_ns[request.id] = late_after_ns
        return True

    def give_up(self, request: Request) -> None:
        """Move a request that can no longer make it to the late ones."""
        if self._unrank(request):
            self._late.append(request.id)

    def _unrank(self, request: Request) -> bool:
        if not _discard(self._ranked, (self.rank(request), request.id)):
            return False
        if (late_after_ns := self._late_after_ns.pop(request.id, None)) is not None:
            _discard(self._latest, (late_after_ns, request.id))
        return True

    def check(self) -> None:
        """Assert that every waiting request is in exactly one of the two orders."""
        listed = [request_id for _, request_id in self._ranked] + list(self._late)
        assert sorted(listed) == sorted(self._requests), (listed, list(self._requests))
        assert self._ranked == sorted(self._ranked)
        assert self._latest == sorted((late_after_ns, i) for i, late_after_ns in self._late_after_ns.items())
        assert self._late_after_ns.keys() <= {i for _, i in self._ranked}
        rows: dict[int, int] = {}
        for request in self._requests.values():
            rows[request.priority] = rows.get(request.priority, 0) + request.rows
        assert self.rows == rows, (self.rows, rows)


def _discard(ordered: list[_Key], key: _Key) -> bool:
    i = bisect_left(ordered, key)
    if i == len(ordered) or ordered[i] != key:
        return False
    del ordered[i]
    return True
