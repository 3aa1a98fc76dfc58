"""A device in virtual time: batches that run at the same time, each at 1 / slowdown of its speed alone.

Where its links have a bandwidth, a batch's inputs come before its execution, along with others' inputs, and its outputs
leave after it, along with others' outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import NamedTuple, Protocol

import numpy as np

from backend.simulation.contention import Truth
from predictor.features import ZERO_SUMS, Own, Sums, contribution
from predictor.link_sharing import Link
from predictor.slowdown_function import SlowdownFunction

Key = tuple[int, int]


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per nanosecond, which are GB/s; without a limit nothing takes time to move."""

    h2d: float = inf
    d2h: float = inf


class EndedBatch(NamedTuple):
    """A batch that is over, and what it took."""

    key: Key
    exec_ns: int
    h2d_ns: int = 0
    d2h_ns: int = 0


class SimulatedDevice(Protocol):
    """A device that the simulator runs batches on. Times are nanoseconds of its clock and never go back."""

    def start(
        self,
        key: Key,
        own: Own,
        now_ns: float,
        bytes_in: float = 0.0,
        bytes_out: float = 0.0,
        *,
        preempted: Sequence[Key] = (),
        core: int | None = None,
    ) -> None:
        """Begins a batch. core: where lanes share cores. preempted: batches that are suspended until it is executed."""

    @property
    def next_ns(self) -> float | None:
        """Instant at which something happens by itself."""

    def step(self) -> EndedBatch | None:
        """Lets happen what is due at `next_ns`; returns the batch that is over by it, if one is."""


@dataclass(slots=True)
class _SimulatedBatch:
    """sent_ns, started_ns, done_ns: when its inputs, its execution and its outputs began."""

    response: SlowdownFunction
    adds: Sums
    left_ns: float
    d2h_ns: float
    sent_ns: float
    started_ns: float = 0.0
    done_ns: float = 0.0
    slowdown: float = 1.0
    suspends: Sequence[Key] = ()
    """Batches that are suspended until it is executed."""
    core: int | None = None
    """Core, on which others may run as well."""


class VirtualDevice:
    """Times are nanoseconds of the simulation's clock and never go back. seed: of how batches differ."""

    def __init__(self, truth: Truth, seed: int, bandwidth: Bandwidth | None = None) -> None:
        self._truth = truth
        self._bandwidth = bandwidth or Bandwidth()
        self._h2d, self._d2h = Link[Key](), Link[Key]()
        self._moving: dict[Key, _SimulatedBatch] = {}
        self._jobs: dict[Key, _SimulatedBatch] = {}
        self._suspended: dict[Key, _SimulatedBatch] = {}
        self._now_ns = 0.0
        self._stream = np.random.default_rng(seed)
        self._drawn: list[float] = []
        self._first: tuple[float, Key] | None = None
        """Instant at which an execution ends, and whose, in whole nanoseconds, if nothing else happens."""
        self._up_to_date = True
        """False: others run than when it was worked out; one that ends and one that begins at once ask for it once."""

    def start(
        self,
        key: Key,
        own: Own,
        now_ns: float,
        bytes_in: float = 0.0,
        bytes_out: float = 0.0,
        *,
        preempted: Sequence[Key] = (),
        core: int | None = None,
    ) -> None:
        """Begins a batch. core: where lanes share cores.

        preempted: batches that are suspended until it is executed; it moves nothing then.
        """
        work_ns = own.load.solo_ns * self._residual()
        h2d_ns, d2h_ns = bytes_in / self._bandwidth.h2d, bytes_out / self._bandwidth.d2h
        adds = contribution(own.batch_size, own.load)
        job = _SimulatedBatch(
            self._truth.slowdown_function(own), adds, work_ns, d2h_ns, now_ns, suspends=preempted, core=core
        )
        if h2d_ns:
            self._moving[key] = job
            self._h2d.start(key, h2d_ns, now_ns)
        else:
            self._execute(key, job, now_ns)

    @property
    def next_ns(self) -> float | None:
        """Instant at which something happens by itself."""
        self._update()
        if not self._moving:
            return None if self._first is None else self._first[0]
        return min(event[0] for event in (self._h2d.next, self._first, self._d2h.next) if event is not None)

    def step(self) -> EndedBatch | None:
        """Lets happen what is due at `next_ns`; returns the batch that is over by it, if one is."""
        now_ns = self.next_ns
        assert now_ns is not None
        if self._first is not None and self._first[0] <= now_ns:
            return self._executed(*self._first)
        for link, then in ((self._h2d, self._execute), (self._d2h, self._gone)):
            if (following := link.next) is not None and following[0] <= now_ns:
                at_ns, key = following
                link.end(key, at_ns)
                return then(key, self._moving.pop(key), at_ns)
        raise AssertionError("nothing is due")

    def _execute(self, key: Key, job: _SimulatedBatch, now_ns: float) -> None:
        self._advance(now_ns)
        job.started_ns = now_ns
        self._jobs[key] = job
        for other in job.suspends:  # unless it ended this very moment, which the scheduler has still to hear of
            if other in self._jobs:
                self._suspended[other] = self._jobs.pop(other)
        self._up_to_date = False

    def _executed(self, now_ns: float, key: Key) -> EndedBatch | None:
        self._advance(now_ns)
        job = self._jobs.pop(key)
        for other in job.suspends:
            if other in self._suspended:
                self._jobs[other] = self._suspended.pop(other)
        self._up_to_date = False
        job.done_ns = now_ns
        if not job.d2h_ns:
            return self._gone(key, job, now_ns)
        self._moving[key] = job
        self._d2h.start(key, job.d2h_ns, now_ns)
        return None

    @staticmethod
    def _gone(key: Key, job: _SimulatedBatch, now_ns: float) -> EndedBatch:
        exec_ns = max(1, round(job.done_ns - job.started_ns))
        return EndedBatch(key, exec_ns, round(job.started_ns - job.sent_ns), round(now_ns - job.done_ns))

    def _advance(self, now_ns: float) -> None:
        if passed_ns := now_ns - self._now_ns:
            self._update()
            for job in self._jobs.values():
                job.left_ns -= passed_ns / job.slowdown
            self._now_ns = now_ns

    def _update(self) -> None:
        """Works out each batch's slowdown with those that run now, and which ends first."""
        if self._up_to_date:
            return
        self._up_to_date, jobs = True, self._jobs
        if len(jobs) == 1:
            ((key, job),) = jobs.items()
            job.slowdown = job.response.slowdown(ZERO_SUMS)
            self._first = (ceil(self._now_ns + max(0.0, job.left_ns) * job.slowdown), key)
            return
        adds = [job.adds for job in jobs.values()]
        n, c, l2, dram, solo, size = map(sum, zip(*adds, strict=True)) if adds else ZERO_SUMS
        found: tuple[float, Key] | None = None
        for key, job in jobs.items():
            a = job.adds
            uses = (max(0.0, c - a[1]), max(0.0, l2 - a[2]), max(0.0, dram - a[3]))
            co_runners = 0 if job.core is None else sum(other.core == job.core for other in jobs.values()) - 1
            job.slowdown = job.response.slowdown((n - a[0], *uses, solo - a[4], size - a[5]), co_runners)
            at_ns = self._now_ns + max(0.0, job.left_ns) * job.slowdown
            if found is None or at_ns < found[0]:
                found = (at_ns, key)
        self._first = None if found is None else (ceil(found[0]), found[1])

    def _residual(self) -> float:
        if not self._drawn:
            self._drawn = self._stream.choice(self._truth.residuals, 4096).tolist()
        return self._drawn.pop()
