"""Forecasts when a request would end on each of a model's devices, and chooses one. Pure: time is an argument.

Of each device it is known when a lane is free, as its scheduler told last, and what this process sent there since:

    end = max(0, starts + Σ sent since − elapsed) + alone(rows) · slowdown

where what was sent since takes its lane's share of its time, in batches as large as they grow where requests wait.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from backend.scheduler.messages import DeviceLoad

STALE_NS = 50_000_000
"""Age beyond which a device's load may be another one: nobody decides by it who can ask."""
ASK_EVERY_NS = 5_000_000
"""Least time between two questions."""
PATIENCE_NS = 250_000_000
"""Time after which an answer is not waited for any more: it is asked again."""


class DeviceForecast:
    """Knowledge of one device. solo_ns: (rows, latency alone), ascending, to begin with; lanes: of the device."""

    def __init__(self, solo_ns: Sequence[tuple[int, int]], lanes: int) -> None:
        self._solo_ns, self._lanes = tuple(solo_ns), max(1, lanes)
        self._slowdown = 1.0
        self._starts_ns, self._from_ns, self._told_ns = 0.0, 0, 0
        self._sent_ns = 0.0
        """Work that was sent there since the load was asked for that was told last."""
        self._sent_since_asked_ns = 0.0
        self._asks, self._asked_ns = 0, -STALE_NS
        self._answered = True
        self._silent_from_ns = 0
        """Time of the first question that is not answered."""

    def ask(self, now_ns: int, every_ns: int = ASK_EVERY_NS) -> int | None:
        """Number of the question to send to the scheduler now; None where it is not time yet."""
        if now_ns - self._asked_ns < (every_ns if self._answered else PATIENCE_NS):
            return None
        self._asks += 1
        if self._answered:
            self._silent_from_ns = now_ns
        self._asked_ns, self._answered, self._sent_since_asked_ns = now_ns, False, 0.0
        return self._asks

    def tell(self, load: DeviceLoad) -> None:
        """Take an answer over; one to an older question is dropped."""
        if load.asks != self._asks or self._answered:
            return
        self._answered = True
        self._starts_ns, self._slowdown = load.starts_ns, load.slowdown
        self._from_ns = self._told_ns = load.at_ns
        self._solo_ns = load.solo_ns or self._solo_ns
        self._sent_ns = self._sent_since_asked_ns

    def forget(self) -> None:
        """Expect no answer any more, and take nothing to wait there: its scheduler is gone."""
        self._answered, self._starts_ns, self._sent_ns, self._slowdown = True, 0.0, 0.0, 1.0

    def is_stale(self, now_ns: int) -> bool:
        """True where it is too old to decide by."""
        return now_ns - self._told_ns > STALE_NS

    def is_silent(self, now_ns: int) -> bool:
        """True where a question has not been answered for so long that the scheduler may hang."""
        return not self._answered and now_ns - self._silent_from_ns > STALE_NS

    @property
    def awaits(self) -> bool:
        """True while a question is not answered."""
        return not self._answered

    def send(self, rows: int, now_ns: int) -> None:
        """Count a request that was sent there."""
        alone_ns = self.alone_ns(rows)
        if self._starts_ns + self._sent_ns > now_ns - self._from_ns:
            largest, largest_ns = self._solo_ns[-1]
            alone_ns = min(alone_ns, rows * largest_ns / largest)
        else:  # nothing waits there, and its time counts from now on
            self._starts_ns, self._sent_ns, self._from_ns = 0.0, 0.0, now_ns
        work_ns = alone_ns * self._slowdown / self._lanes
        self._sent_ns += work_ns
        self._sent_since_asked_ns += work_ns

    def end_ns(self, rows: int, now_ns: int) -> float:
        """Time from now until a request that is sent there now would have ended."""
        waits_ns = max(0.0, self._starts_ns + self._sent_ns - max(0, now_ns - self._from_ns))
        return waits_ns + self.alone_ns(rows) * self._slowdown

    def alone_ns(self, rows: int) -> float:
        """Latency alone of so many rows: on the line between its neighbours, or in proportion beyond the largest."""
        sizes = [size for size, _ in self._solo_ns]
        i = bisect_left(sizes, rows)
        if i == len(sizes):
            return self._solo_ns[-1][1] * rows / sizes[-1]
        size, solo_ns = self._solo_ns[i]
        if size == rows or i == 0:
            return solo_ns
        below, below_ns = self._solo_ns[i - 1]
        return below_ns + (rows - below) / (size - below) * (solo_ns - below_ns)


def choose(ends_ns: Sequence[float], gone: Sequence[bool], turn: int) -> int:
    """Index of the device where a request ends first. gone: those whose scheduler or engine is gone, which are
    chosen only where there is no other; turn: of equal ones the next one from this index on is chosen.
    """
    count = len(ends_ns)
    order = [(turn + i) % count for i in range(count)]
    return min(order, key=lambda i: (gone[i], ends_ns[i]))
