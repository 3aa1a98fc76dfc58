"""CPU steal, when the host of a virtual machine took its CPU away: what ran slowly was not slowed by co-runners."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")
_EVERY_S = 0.02
_STAT = Path("/proc/stat")
_STEAL = 8
"""Column of a `cpu` line, in ticks of 10 ms (proc(5))."""
_TICK_NS = 10_000_000
_LATE_NS = 60_000_000
"""A look that comes so late says that nobody ran."""


class CpuSteal(msgspec.Struct, frozen=True):
    """at_ns: instants (CLOCK_MONOTONIC) at which the host was seen to have taken CPU since the look before it."""

    begun_ns: int
    ended_ns: int
    share: float
    at_ns: list[int] = []
    since_ns: list[int] = []

    @property
    def lost(self) -> float:
        """`share`, and the share of the time in which nobody ran at all, which the kernel does not count."""
        stalled_ns = sum(
            at - since for at, since in zip(self.at_ns, self.since_ns, strict=True) if at - since > _LATE_NS
        )
        return self.share + stalled_ns / max(1, self.ended_ns - self.begun_ns)

    def disturbed(self, start_ns: int, end_ns: int) -> bool:
        """Tells whether the host took CPU at some time within."""
        first = bisect_left(self.at_ns, start_ns)
        return first < bisect_right(self.since_ns, end_ns)


class CpuStealWatch:
    """A context manager; `found` afterwards. Where the kernel tells nothing of it, only late looks count."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._at_ns: list[int] = []
        self._since_ns: list[int] = []
        self._thread = threading.Thread(target=self._watch, name="cpu-steal-watch", daemon=True)

    def __enter__(self) -> CpuStealWatch:
        self._begun_ns, self._before = time.monotonic_ns(), _ticks()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def found(self) -> CpuSteal:
        """CPU steal up to now."""
        now_ns, (stolen, cores) = time.monotonic_ns(), _ticks()
        share = (stolen - self._before[0]) * _TICK_NS / max(1, (now_ns - self._begun_ns) * cores)
        return CpuSteal(self._begun_ns, now_ns, share, list(self._at_ns), list(self._since_ns))

    def _watch(self) -> None:
        seen_ns, seen = self._begun_ns, self._before[0]
        while not self._stop.wait(_EVERY_S):
            now_ns, (ticks, _) = time.monotonic_ns(), _ticks()
            if ticks > seen or now_ns - seen_ns > _LATE_NS:
                self._at_ns.append(now_ns)
                self._since_ns.append(seen_ns)
            seen_ns, seen = now_ns, ticks


def least_disturbed(take: Callable[[], T], lost: Callable[[T], float], lost_max: float, attempts: int) -> T:
    """Taken again while the host took more than that share of the CPU, but `attempts` times at most."""
    best = take()
    for _ in range(attempts - 1):
        if lost(best) <= lost_max:
            break
        best = min(best, take(), key=lost)
    return best


def _ticks() -> tuple[int, int]:
    """Stolen so far, and the number of cores."""
    lines = [line.split() for line in _STAT.read_text().splitlines() if line.startswith("cpu")]
    return int(lines[0][_STEAL]), len(lines) - 1
