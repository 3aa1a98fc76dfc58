"""A device in virtual time: batches that run beside each other, each at 1 / slowdown of its own pace."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.simulation.contention import Truth
from predictor.features import NOBODY, Own, Sums, contribution
from predictor.response import Response

Key = tuple[int, int]


@dataclass(slots=True)
class _Job:
    response: Response
    adds: Sums
    left_ns: float
    started_ns: float
    slowdown: float = 1.0


class VirtualDevice:
    """Times are nanoseconds of the simulation's clock and never go back. seed: of how batches differ."""

    def __init__(self, truth: Truth, seed: int) -> None:
        self._truth = truth
        self._jobs: dict[Key, _Job] = {}
        self._now_ns = 0.0
        self._stream = np.random.default_rng(seed)
        self._drawn: list[float] = []
        self.next: tuple[float, Key] | None = None
        """When which batch finishes, if nothing else happens."""

    def start(self, key: Key, own: Own, now_ns: float) -> None:
        """A batch begins."""
        self._advance(now_ns)
        work_ns = own.load.solo_ns * self._residual()
        self._jobs[key] = _Job(self._truth.response(own), contribution(own.batch_size, own.load), work_ns, now_ns)
        self._settle()

    def finish(self) -> tuple[Key, int]:
        """The batch of `next` ends; returns it and what its execution took."""
        assert self.next is not None
        at_ns, key = self.next
        self._advance(at_ns)
        job = self._jobs.pop(key)
        self._settle()
        return key, max(1, round(at_ns - job.started_ns))

    def _advance(self, now_ns: float) -> None:
        passed_ns = now_ns - self._now_ns
        for job in self._jobs.values():
            job.left_ns -= passed_ns / job.slowdown
        self._now_ns = now_ns

    def _settle(self) -> None:
        """Each one's pace beside those that run now, and who ends first."""
        jobs = self._jobs
        if len(jobs) == 1:
            ((key, job),) = jobs.items()
            job.slowdown = job.response.slowdown(NOBODY)
            self.next = (self._now_ns + max(0.0, job.left_ns) * job.slowdown, key)
            return
        adds = [job.adds for job in jobs.values()]
        n, c, l2, dram, solo, size = map(sum, zip(*adds, strict=True)) if adds else NOBODY
        found: tuple[float, Key] | None = None
        for key, job in jobs.items():
            a = job.adds
            uses = (max(0.0, c - a[1]), max(0.0, l2 - a[2]), max(0.0, dram - a[3]))
            job.slowdown = job.response.slowdown((n - a[0], *uses, solo - a[4], size - a[5]))
            at_ns = self._now_ns + max(0.0, job.left_ns) * job.slowdown
            if found is None or at_ns < found[0]:
                found = (at_ns, key)
        self.next = found

    def _residual(self) -> float:
        if not self._drawn:
            self._drawn = self._stream.choice(self._truth.residuals, 4096).tolist()
        return self._drawn.pop()
