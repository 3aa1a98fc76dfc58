"""A device in virtual time: batches that run beside each other, each at 1 / slowdown of its own pace.

Where its links have a bandwidth, a batch's inputs come before its execution, beside others' inputs, and its outputs
leave after it, beside others' outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import NamedTuple

import numpy as np

from backend.simulation.contention import Truth
from predictor.features import NOBODY, Own, Sums, contribution
from predictor.link_sharing import Link
from predictor.slowdown_function import Response

Key = tuple[int, int]


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per nanosecond, which are GB/s; without a limit nothing takes time to move."""

    into: float = inf
    out: float = inf


class Ended(NamedTuple):
    """A batch that is over, and what it took."""

    key: Key
    exec_ns: int
    in_ns: int = 0
    out_ns: int = 0


@dataclass(slots=True)
class _Job:
    """set_out_ns, started_ns, done_ns: when its inputs, its execution and its outputs began."""

    response: Response
    adds: Sums
    left_ns: float
    out_ns: float
    set_out_ns: float
    started_ns: float = 0.0
    done_ns: float = 0.0
    slowdown: float = 1.0
    behind: Sequence[Key] = ()
    """Batches that are suspended until it is executed."""
    core: int | None = None
    """Core, on which others may run as well."""


class VirtualDevice:
    """Times are nanoseconds of the simulation's clock and never go back. seed: of how batches differ."""

    def __init__(self, truth: Truth, seed: int, bandwidth: Bandwidth | None = None) -> None:
        self._truth = truth
        self._bandwidth = bandwidth or Bandwidth()
        self._coming, self._going = Link[Key](), Link[Key]()
        self._moving: dict[Key, _Job] = {}
        self._jobs: dict[Key, _Job] = {}
        self._standing: dict[Key, _Job] = {}
        self._now_ns = 0.0
        self._stream = np.random.default_rng(seed)
        self._drawn: list[float] = []
        self._first: tuple[float, Key] | None = None
        """Instant at which an execution ends, and whose, in whole nanoseconds, if nothing else happens."""
        self._settled = True
        """False: others run than when it was worked out; one that ends and one that begins at once ask for it once."""

    def start(
        self,
        key: Key,
        own: Own,
        now_ns: float,
        bytes_in: float = 0.0,
        bytes_out: float = 0.0,
        *,
        before: Sequence[Key] = (),
        core: int | None = None,
    ) -> None:
        """A batch begins. before: those that stand still until it is executed; it moves nothing then. core: where lanes
        share cores.
        """
        work_ns = own.load.solo_ns * self._residual()
        in_ns, out_ns = bytes_in / self._bandwidth.into, bytes_out / self._bandwidth.out
        adds = contribution(own.batch_size, own.load)
        job = _Job(self._truth.response(own), adds, work_ns, out_ns, now_ns, behind=before, core=core)
        if in_ns:
            self._moving[key] = job
            self._coming.start(key, in_ns, now_ns)
        else:
            self._execute(key, job, now_ns)

    @property
    def next_ns(self) -> float | None:
        """Instant at which something happens by itself."""
        self._settle()
        if not self._moving:
            return None if self._first is None else self._first[0]
        return min(event[0] for event in (self._coming.next, self._first, self._going.next) if event is not None)

    def step(self) -> Ended | None:
        """Lets happen what is due at `next_ns`; returns the batch that is over by it, if one is."""
        now_ns = self.next_ns
        assert now_ns is not None
        if self._first is not None and self._first[0] <= now_ns:
            return self._executed(*self._first)
        for link, then in ((self._coming, self._execute), (self._going, self._gone)):
            if (following := link.next) is not None and following[0] <= now_ns:
                at_ns, key = following
                link.end(key, at_ns)
                return then(key, self._moving.pop(key), at_ns)
        raise AssertionError("nothing is due")

    def _execute(self, key: Key, job: _Job, now_ns: float) -> None:
        self._advance(now_ns)
        job.started_ns = now_ns
        self._jobs[key] = job
        for behind in job.behind:  # unless it ended this very moment, which the scheduler has still to hear of
            if behind in self._jobs:
                self._standing[behind] = self._jobs.pop(behind)
        self._settled = False

    def _executed(self, now_ns: float, key: Key) -> Ended | None:
        self._advance(now_ns)
        job = self._jobs.pop(key)
        for behind in job.behind:
            if behind in self._standing:
                self._jobs[behind] = self._standing.pop(behind)
        self._settled = False
        job.done_ns = now_ns
        if not job.out_ns:
            return self._gone(key, job, now_ns)
        self._moving[key] = job
        self._going.start(key, job.out_ns, now_ns)
        return None

    @staticmethod
    def _gone(key: Key, job: _Job, now_ns: float) -> Ended:
        exec_ns = max(1, round(job.done_ns - job.started_ns))
        return Ended(key, exec_ns, round(job.started_ns - job.set_out_ns), round(now_ns - job.done_ns))

    def _advance(self, now_ns: float) -> None:
        if passed_ns := now_ns - self._now_ns:
            self._settle()
            for job in self._jobs.values():
                job.left_ns -= passed_ns / job.slowdown
            self._now_ns = now_ns

    def _settle(self) -> None:
        """Works out each batch's slowdown with those that run now, and which ends first."""
        if self._settled:
            return
        self._settled, jobs = True, self._jobs
        if len(jobs) == 1:
            ((key, job),) = jobs.items()
            job.slowdown = job.response.slowdown(NOBODY)
            self._first = (ceil(self._now_ns + max(0.0, job.left_ns) * job.slowdown), key)
            return
        adds = [job.adds for job in jobs.values()]
        n, c, l2, dram, solo, size = map(sum, zip(*adds, strict=True)) if adds else NOBODY
        found: tuple[float, Key] | None = None
        for key, job in jobs.items():
            a = job.adds
            uses = (max(0.0, c - a[1]), max(0.0, l2 - a[2]), max(0.0, dram - a[3]))
            crowd = 0 if job.core is None else sum(other.core == job.core for other in jobs.values()) - 1
            job.slowdown = job.response.slowdown((n - a[0], *uses, solo - a[4], size - a[5]), crowd)
            at_ns = self._now_ns + max(0.0, job.left_ns) * job.slowdown
            if found is None or at_ns < found[0]:
                found = (at_ns, key)
        self._first = None if found is None else (ceil(found[0]), found[1])

    def _residual(self) -> float:
        if not self._drawn:
            self._drawn = self._stream.choice(self._truth.residuals, 4096).tolist()
        return self._drawn.pop()
