"""What runs on the device: on which lane, beside whom, how far. Kept true at each launch and finish; decides nothing.

A batch *in front* goes before whatever runs on its lane, which stands still meanwhile: it slows nobody, and what it
takes in the end tells nothing about its neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

from backend.scheduler.running_batches import Progress
from backend.scheduler.state import BatchKey, Lanes, Running
from predictor.co_runners import CoRunners, Execution
from predictor.colocation import Colocation
from predictor.features import Sums
from predictor.slowdown_function import SlowdownFunction
from predictor.transfers import NO_TRANSFERS, TransferTimes


class Suffered(NamedTuple):
    """A batch's time beside its neighbours, and what they contributed meanwhile, exactly."""

    stay: Execution
    sums: Sums


class Occupancy:
    """lanes: how many batches may run at once; cores: see `Lanes`. All times in nanoseconds of one clock."""

    def __init__(self, lanes: int, cores: int | None = None) -> None:
        self.lanes = Lanes(lanes, cores)
        self.running: dict[BatchKey, Running] = {}
        self.colocation = Colocation()
        self.progress = Progress()
        self._company = CoRunners()
        self._standing: set[BatchKey] = set()
        self._stood: set[BatchKey] = set()
        """Those that stand still, and those that did at some time."""

    def start(self, batch: Running, response: SlowdownFunction, work: TransferTimes = NO_TRANSFERS) -> list[BatchKey]:
        """A batch begins. Those that stand still from now on: for it, or itself, adopted below one that runs."""
        self.running[batch.key] = batch
        self.lanes.take(batch.lane)
        give_way = [key for key in self._on(self.lanes.behind(batch.lane)) if key not in self._standing]
        for key in give_way:
            self._remove(key, batch.launched_ns)
        self._add(batch, batch.launched_ns)
        self.progress.launch(batch, response, batch.launched_ns, work, self.lanes.core(batch.lane))
        for key in give_way:
            self._stand(key, batch.key)
        if (front := self._in_front_of(batch)) is not None:  # it was adopted below one that runs
            self._remove(batch.key, batch.launched_ns)
            self._stand(batch.key, front)
            give_way.append(batch.key)
        return give_way

    def end(self, key: BatchKey, now_ns: int) -> tuple[Running, Suffered | None]:
        """A batch is gone, and what it suffered; None where it stood still for a while."""
        batch = self.running.pop(key)
        self.lanes.release(batch.lane)
        suffered = None
        if key not in self._standing:
            suffered = self._remove(key, now_ns)
        self.progress.finish(key, now_ns)
        self._standing.discard(key)
        for behind in self._on(self.lanes.behind(batch.lane)):
            if (front := self._in_front_of(self.running[behind])) is None:
                self._go_on(behind, now_ns)
            else:  # of several that were adopted there
                self.progress.stand(behind, front)
        if key not in self._stood:
            return batch, suffered
        self._stood.discard(key)
        return batch, None

    def unhindered(self) -> list[Running]:
        """Batches that have a lane to themselves, with nobody in front of it."""
        occupied, count = self.lanes.occupied, self.lanes.count
        return [
            b
            for b in self.running.values()
            if b.lane < count and (occupied[b.lane], occupied[count + b.lane]) == (1, 0)
        ]

    def check(self) -> None:
        """What holds between any two events."""
        self.colocation.check()
        moving = set(self.running) - self._standing
        assert moving == set(self.colocation._entries)
        assert len(self._company) == len(moving)
        assert self._standing <= self._stood <= set(self.running)
        assert self._standing == {b.key for b in self.running.values() if self._in_front_of(b) is not None}
        self.lanes.check(b.lane for b in self.running.values())
        launched = [b for b in self.running.values() if b.requests]
        assert len({b.lane for b in launched}) == len(launched), "two launches share a lane"
        self.progress.check(self.running)
        twice = zip(self.colocation.running(), self.progress.sums(), strict=True)
        assert all(abs(exact - summed) < 1e-3 for exact, summed in twice), "what runs adds up in two ways"

    def _on(self, lane: int | None) -> list[BatchKey]:
        """Whose turn on this lane it is, or would be."""
        return [] if lane is None else [b.key for b in self.running.values() if self.lanes.place(b.lane) == lane]

    def _in_front_of(self, batch: Running) -> BatchKey | None:
        lane = self.lanes.in_front(batch.lane)
        return None if lane is None or not self.lanes.occupied[lane] else self._on(lane)[0]

    def _add(self, batch: Running, now_ns: int) -> None:
        self.colocation.launch(batch.key, batch.own, now_ns)
        self._company.launch(batch.key, batch.own, now_ns, self.lanes.core(batch.lane))

    def _remove(self, key: BatchKey, now_ns: int) -> Suffered:
        self.colocation.advance(now_ns)
        sums = self.colocation.suffered(key)
        self.colocation.finish(key, now_ns)
        return Suffered(self._company.finish(key, now_ns), sums)

    def _stand(self, key: BatchKey, front: BatchKey) -> None:
        self._standing.add(key)
        self._stood.add(key)
        self.progress.stand(key, front)

    def _go_on(self, key: BatchKey, now_ns: int) -> None:
        self._standing.discard(key)
        self._add(self.running[key], now_ns)
        self.progress.go_on(key)
