"""The batches on the device: lanes, suspensions, progress, mutual slowdowns. Updated at each event; decides nothing.

A batch may preempt the one on its lane, which is suspended meanwhile: that one slows no others then, and its time in
the end tells nothing about its co-runners.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from operator import add, sub
from typing import NamedTuple

from backend.scheduler.forecast.transfer_forecast import RemainingTransfers, TransferForecast
from backend.scheduler.running_batch import BatchKey, RunningBatch
from predictor.co_runners import CoRunners, Execution
from predictor.colocation import Colocation, Suffered
from predictor.features import Own
from predictor.slowdown_function import SHARES, ZERO_SUMS, SlowdownFunction, Sums
from predictor.transfers import NO_TRANSFERS, TransferTimes


class CoRun(NamedTuple):
    """A batch's time beside its co-runners, and what they contributed meanwhile, exactly."""

    stay: Execution
    suffered: Suffered


class DeviceState:
    """lanes: how many batches may run at once; cores: that the lanes are spread over in turn, None: a lane is no core.

    Times are nanoseconds of one clock. Batches are in the order of their launches in all that is said of them.
    """

    def __init__(self, lanes: int, cores: int | None = None) -> None:
        if lanes < 1:
            raise ValueError(f"a device has at least one lane, got {lanes}")
        self.lanes, self._all_lanes = lanes, frozenset(range(lanes))
        self._cores = cores if cores is not None and cores < lanes else None
        self.reserved_lane: int | None = None
        """The lane of the lease."""
        self.running: dict[BatchKey, RunningBatch] = {}
        self.transfers = TransferForecast()
        self.colocation = Colocation()
        self._company = CoRunners()
        self._now_ns = 0
        self._sums: Sums | None = None
        """Contributions of all batches; None: to be summed up anew."""
        self._slowdowns_updated = True

    @property
    def batches(self) -> Collection[RunningBatch]:
        """As of the last `advance`."""
        return self.running.values()

    @property
    def as_of_ns(self) -> int:
        """Instant of the last `advance`."""
        return self._now_ns

    # Lanes

    def free_lane(self) -> int | None:
        """A lane without a batch that is not reserved; on the core with the fewest batches."""
        taken = [batch.lane for batch in self.running.values()]
        free = self._all_lanes.difference(taken, (self.reserved_lane,))
        if self._cores is None:
            return min(free, default=None)
        return min(sorted(free), key=lambda lane: len(self._on_core(self.core_of(lane))), default=None)

    def core_of(self, lane: int) -> int | None:
        """The core of a lane, where lanes share cores."""
        return None if self._cores is None else lane % self._cores

    def preemptible(self) -> list[RunningBatch]:
        """Batches that have a lane to themselves."""
        lanes = [batch.lane for batch in self.running.values()]
        return [b for b in self.running.values() if not b.preempts and lanes.count(b.lane) == 1]

    # Launches and finishes

    def start(self, batch: RunningBatch, transfers: TransferTimes = NO_TRANSFERS) -> list[RunningBatch]:
        """Add a batch that begins, at once or when its inputs are there.

        Returns the batches suspended by that: those on its lane where it preempts, or itself, adopted below one.
        """
        now_ns = batch.launched_ns
        self.advance(now_ns)
        suspended = [b for b in self._on_lane(batch.lane) if b.suspended_for is None] if batch.preempts else []
        for other in suspended:
            self._leave_co_runners(other.key, now_ns)
        batch.core = self.core_of(batch.lane)
        self._add_core_sharers(batch, 1)
        self.running[batch.key] = batch
        self._join_co_runners(batch, now_ns)
        if transfers is not NO_TRANSFERS:
            self.transfers.start(batch.key, transfers, now_ns)
        for other in suspended:
            other.suspend(batch)
        if not batch.requests and (preempting := self._preempting(batch)) is not None:
            self._leave_co_runners(batch.key, now_ns)
            batch.suspend(preempting)
            suspended.append(batch)
        self._changed()
        return suspended

    def end(self, key: BatchKey, now_ns: int) -> tuple[RunningBatch, CoRun | None]:
        """Remove a batch, and resume those suspended for it. Returns it, and its time; None where it was suspended."""
        self.advance(now_ns)
        batch = self.running.pop(key)
        co_run = None if batch.suspended_for is not None else self._leave_co_runners(key, now_ns)
        self._add_core_sharers(batch, -1)
        if key in self.transfers:
            self.transfers.end(key, now_ns)
        for other in self._on_lane(batch.lane) if batch.preempts else []:
            if (preempting := self._preempting(other)) is not None:  # of several that were adopted there
                other.suspend(preempting)
            else:
                other.resume()
                self._join_co_runners(other, now_ns)
        self._changed()
        return batch, None if batch.was_suspended else co_run

    # Progress and slowdowns

    def advance(self, now_ns: int) -> None:
        """Let every batch progress by the time since the last call."""
        span_ns = now_ns - self._now_ns
        if span_ns and self.running:
            self.update_slowdowns()
            executing = [batch for batch in self.running.values() if batch.suspended_for is None]
            for batch in executing:
                batch.left_ns -= span_ns / batch.slowdown
            classes = sorted([batch.priority for batch in executing])
            for batch in executing if classes[0] < classes[-1] else ():
                lower = len(classes) - bisect_right(classes, batch.priority)
                batch.beside_lower_ns += span_ns * lower / (len(classes) - 1)
            if self.transfers:
                for key, waited_ns in self.transfers.advance(now_ns).items():
                    batch = self.running[key]
                    batch.left_ns += waited_ns / batch.slowdown
        self._now_ns = now_ns

    def update_slowdowns(self) -> None:
        """Set each batch's slowdown beside those that run now; kept until they change."""
        if not self._slowdowns_updated:
            sums, self._slowdowns_updated = self.sums(), True
            for batch in self.running.values():
                batch.slowdown = batch.slowdown_with(sums)

    def update_functions(
        self, function_of: Callable[[int, Own], SlowdownFunction], contribution_of: Callable[[Own], Sums]
    ) -> None:
        """Forecast by these slowdown functions, of a source's batch, from now on: the predictor has learned."""
        for batch in self.running.values():
            batch.update_function(function_of(batch.key[0], batch.own), contribution_of(batch.own))
        self._changed()

    def sums(self) -> Sums:
        """Contributions of all batches."""
        if self._sums is None:
            each = [batch.adds for batch in self.running.values()]
            self._sums = tuple(map(sum, zip(ZERO_SUMS, *each, strict=True)))
        return self._sums

    def sums_with(self, adds: Sums) -> Sums:
        """The same with one more batch that adds this."""
        return tuple(map(add, self.sums(), adds))

    def sums_without(self, batch: RunningBatch) -> Sums:
        """The same but for this batch."""
        return tuple(map(sub, self.sums(), batch.adds))

    def lower_share(self, priority: int) -> float:
        """Share of the running batches that are of a lower class and give no way to this one."""
        running = self.running.values()
        lower = sum(batch.priority > priority and not batch.gives_way for batch in running)
        return lower / len(running) if running else 0.0

    def core_sharers(self, core: int | None) -> int:
        """Number of batches on a core, where lanes share cores."""
        return len(self._on_core(core))

    def transfer_times(
        self, candidate: TransferTimes = NO_TRANSFERS, candidate_takes_ns: float = 0.0
    ) -> tuple[Mapping[BatchKey, RemainingTransfers], RemainingTransfers]:
        """See `TransferForecast.remaining`, as each batch executes with its present slowdown."""
        self.update_slowdowns()
        takes_ns = {key: batch.remaining_ns * batch.slowdown for key, batch in self.running.items()}
        return self.transfers.remaining(takes_ns, candidate, candidate_takes_ns)

    def check(self) -> None:
        """Assert what holds between any two events."""
        executing = {b.key for b in self.running.values() if b.suspended_for is None}
        self.colocation.check()
        assert executing == set(self.colocation._entries)
        assert len(self._company) == len(executing)
        self.transfers.check(self.running)
        launched = [(b.lane, b.preempts) for b in self.running.values() if b.requests]
        assert len(set(launched)) == len(launched), "two launches share a lane"
        for key, batch in self.running.items():
            assert (batch.key, batch.core) == (key, self.core_of(batch.lane))
            assert 0 <= batch.lane < self.lanes
            assert batch.suspended_for is self._preempting(batch)
            assert batch.was_suspended or batch.suspended_for is None
            assert batch.adds == (ZERO_SUMS if batch.suspended_for else batch.contribution)
            assert batch.core_sharers == max(0, self.core_sharers(batch.core) - 1)
        twice = zip(self.colocation.running()[:SHARES], self.sums()[:SHARES], strict=True)  # pressures are as of launch
        assert all(abs(exact - summed) < 1e-3 for exact, summed in twice), "what runs adds up in two ways"

    def _on_core(self, core: int | None) -> list[RunningBatch]:
        return [] if core is None else [batch for batch in self.running.values() if batch.core == core]

    def _on_lane(self, lane: int) -> list[RunningBatch]:
        """Batches launched on it without preempting."""
        return [b for b in self.running.values() if b.lane == lane and not b.preempts]

    def _preempting(self, batch: RunningBatch) -> RunningBatch | None:
        if batch.preempts:
            return None
        return next((b for b in self.running.values() if b.preempts and b.lane == batch.lane), None)

    def _add_core_sharers(self, batch: RunningBatch, more: int) -> None:
        others = self._on_core(batch.core)
        batch.core_sharers = len(others)
        for other in others:
            other.core_sharers += more

    def _join_co_runners(self, batch: RunningBatch, now_ns: int) -> None:
        self.colocation.launch(batch.key, batch.contribution, now_ns)
        self._company.launch(batch.key, batch.own, now_ns, batch.core)

    def _leave_co_runners(self, key: BatchKey, now_ns: int) -> CoRun:
        return CoRun(self._company.finish(key, now_ns), self.colocation.finish(key, now_ns))

    def _changed(self) -> None:
        self._sums, self._slowdowns_updated = None, False
