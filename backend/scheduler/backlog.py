"""The waiting requests of all models, and which of them have become late.

A request is late once it would miss its deadline even alone on the device, launched at once, as far as its like was
measured; else once its deadline has passed. Where its model rejects misses it is rejected; else it is served after
those that can make it. Of those that would be rejected for what they are believed to take, not for having waited, one
is served now and then: else a latency believed too high would never be measured again.
"""

from __future__ import annotations

from math import inf

from backend.scheduler.messages import Reject, Request
from backend.scheduler.source import Source


class Backlog:
    """All times in nanoseconds of one clock."""

    def __init__(self) -> None:
        self.sources: dict[int, Source] = {}
        """Those with requests that wait."""
        self._late_after_ns = self.reject_after_ns = inf
        """Until then none of these becomes late, or is to be rejected for it."""

    def __bool__(self) -> bool:
        return bool(self.sources)

    def add(self, source: Source, request: Request) -> None:
        """Queue a request."""
        late_after_ns = source.late_after_ns(request)
        source.queue.add(request, late_after_ns)
        self.sources[source.id] = source
        self._note_late_after(source, late_after_ns)

    def remove(self, source: Source, request: int) -> None:
        """Take out a request that waits."""
        source.queue.remove(request)
        if not source.queue:
            del self.sources[source.id]

    def forget(self, source: int) -> None:
        """Drop a model whose process is gone."""
        self.sources.pop(source, None)

    def find_late(self, now_ns: int) -> list[tuple[Reject, int]]:
        """Set aside the requests that have become late; returns the rejections, of models that reject them, and the
        class of each."""
        if now_ns <= self._late_after_ns:
            return []
        self._late_after_ns = self.reject_after_ns = inf
        aware = [source for source in self.sources.values() if source.join.interference_aware]
        return [rejection for source in aware for rejection in self._find_late_of(source, now_ns)]

    def _find_late_of(self, source: Source, now_ns: int) -> list[tuple[Reject, int]]:
        rejected = []
        queue = source.queue
        while (due := queue.first_late()) is not None:
            if now_ns <= (late_after_ns := source.late_after_ns(due)):
                if not queue.postpone(due, late_after_ns):  # else it was to be late before what is learned now
                    self._note_late_after(source, late_after_ns)
                    break
            elif _remeasures(source, due, now_ns) or not source.join.rejects:
                queue.give_up(due)
            else:
                rejected.append((_rejection(source, due, now_ns), due.priority))
                self.remove(source, due.id)
        return rejected

    def _note_late_after(self, source: Source, late_after_ns: float) -> None:
        self._late_after_ns = min(self._late_after_ns, late_after_ns)
        if source.join.rejects and source.join.interference_aware:
            self.reject_after_ns = min(self.reject_after_ns, late_after_ns)

    def check(self, sources: dict[int, Source]) -> None:
        """Assert what holds between any two events. sources: all that joined."""
        for source in sources.values():
            source.queue.check()
        assert self.sources == {source.id: source for source in sources.values() if source.queue}


def _remeasures(source: Source, request: Request, now_ns: int) -> bool:
    """True where it is to be served to measure its like again: its believed latency, not a wait, makes it hopeless, and
    was not measured for a while. Of a model that rejects misses, one at a time.
    """
    assert request.deadline_ns is not None
    if not 0 < request.deadline_ns - request.arrival_ns < source.expected_solo_ns(request):
        return False
    if source.join.rejects and source.queue.late_head() is not None:
        return False
    return source.solo.doubt(request.rows, request.group, now_ns)


def _rejection(source: Source, request: Request, now_ns: int) -> Reject:
    """Rejection with the time that it would take and that it was allowed, from its arrival on."""
    assert request.deadline_ns is not None
    predicted_ns = now_ns - request.arrival_ns + source.measured_solo_ns(request)
    return Reject(source.id, request.id, predicted_ns, request.deadline_ns - request.arrival_ns)
