"""An independent account of where every request and batch is, kept by what processes and the scheduler tell each other.

Keeps books and judges nothing: `rules` and `invariants` hold the scheduler against it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from backend.scheduler.messages import AdoptedBatch, Cancel, Finish, Join, Launch, Lease, Reject, Request, Take
from predictor.colocation import Parts
from predictor.slowdown_function import SlowdownFunction
from predictor.workload import Load
from tests.fakes.builders import START_NS
from tests.properties.intervals import FEATURES, Interval, Intervals
from tests.properties.processes import Batch, Model
from tests.properties.solo_history import SoloHistory

BatchKey = tuple[int, int]
"""(source, batch)."""


@dataclass(frozen=True)
class Execution:
    """A batch as the scheduler has it: to the nanosecond, which other arithmetic is not. parts: `Interval.own`."""

    load: Load
    parts: Parts


class Account:
    """Books of one scheduler. Its methods are what is told, in the order of the events and commands."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.now_ns = self.seen_ns = START_NS
        """The instant of the next event, and that of the last one that the scheduler took notice of."""
        self.models: dict[int, Model] = {}
        self.executions: Mapping[BatchKey, Execution] = {}
        """All that is on the device after the last event, by what was learned before it."""
        self.intervals = Intervals()
        self.trained: list[Interval] = []
        """Executions that the predictor is to be trained with."""
        self.batches = 0
        """The number of the last launch."""
        self.taken = self.doubts = self.guessed = 0

    # Queries

    def batches_on(self, lane: int, *, preempts: bool) -> list[Batch]:
        """Batches launched on this lane, those that preempt or those that do not."""
        batches = (b for model in self.models.values() for b in model.running.values())
        return [b for b in batches if (b.lane, b.preempts) == (lane, preempts)]

    def occupied(self) -> set[int]:
        """Lanes with a batch."""
        return {b.lane for model in self.models.values() for b in model.running.values()}

    def leased(self) -> set[int]:
        """Lanes that a process may launch on by itself."""
        return {m.lease.lane for m in self.models.values() if m.lease is not None}

    def waiting(self) -> int:
        """Requests that wait, of all models."""
        return sum(len(model.waiting) for model in self.models.values())

    # Processes tell

    def join(self, source: int, join: Join) -> None:
        self.models[source] = Model(join, SoloHistory(join.profile, join.profiled_group, self.now_ns))

    def limit(self, source: int, max_batch_size: int) -> None:
        model = self.models[source]
        model.join = replace(model.join, max_batch_size=max_batch_size)

    def arrive(self, source: int, requests: Collection[Request]) -> None:
        model = self.models[source]
        model.waiting.update((r.id, r) for r in requests)
        model.arrivals += 1
        model.lease = None

    def cancel(self, source: int, cancel: Cancel) -> None:
        model = self.models[source]
        model.gone += [request for request in cancel.requests if model.waiting.pop(request, None) is not None]

    def take(self, source: int, take: Take) -> None:
        """The process launched a batch of one on its leased lane."""
        model, request = self.models[source], take.request
        assert model.lease is not None
        self.taken += 1
        model.gone.append(request.id)
        self._start((source, take.batch), (request,), request.rows, request.group, model.lease.lane)

    def give_back(self, source: int) -> None:
        """The process gave its lease back."""
        self.models[source].lease = None

    def adopt(self, source: int, adopted: AdoptedBatch) -> list[Batch]:
        """Batches suspended from now on. On a lane that is not here it takes the last."""
        here = adopted.lane < self.lanes
        lane, preempts = (adopted.lane, adopted.preempts) if here else (self.lanes - 1, False)
        return self._start((source, adopted.batch), (), adopted.rows, None, lane, preempts)

    def finish(self, source: int, finish: Finish, function: SlowdownFunction) -> bool:
        """True where the batch's time is learned from. function: its slowdown, before anything is learned from it."""
        model, batch = self.models[source], self._end(source, finish.batch)
        if finish.exec_ns is None or not batch.requests or batch.was_suspended:
            return False
        model.moves |= finish.h2d_ns + finish.d2h_ns > 0
        executed = batch.interval.without(finish.h2d_ns, finish.d2h_ns)
        self.trained.append(executed)
        self._measured(model, batch, executed, finish.exec_ns, function)
        return True

    def leave(self, source: int) -> None:
        """The process is gone, and all that it had; a source that never joined is no matter."""
        if source in self.models:
            running = self.models[source].running
            # Those that preempt last, so that none resumes for no time.
            for batch in sorted(running, key=lambda number: running[number].preempts):
                self._end(source, batch)
            del self.models[source]

    # The scheduler tells

    def launch(self, launch: Launch) -> None:
        model, self.batches = self.models[launch.source], launch.batch
        requests = [model.waiting.pop(request) for request in launch.requests]
        model.gone += launch.requests
        rows, key = sum(r.rows for r in requests), (launch.source, launch.batch)
        self._start(key, requests, rows, requests[0].group, launch.lane, launch.preempts)

    def reject(self, reject: Reject) -> None:
        model = self.models[reject.source]
        del model.waiting[reject.request]
        model.gone.append(reject.request)

    def lease(self, lease: Lease) -> None:
        model = self.models[lease.source]
        model.lease, model.recalled = lease, False

    def recall(self, source: int) -> None:
        self.models[source].recalled = True

    def doubt(self, model: Model, rows: int, group: int) -> None:
        """A request was let through to measure its like."""
        model.solo.doubt(rows, group, self.now_ns)
        self.doubts += 1

    # Batches

    def _start(
        self,
        key: BatchKey,
        requests: Collection[Request],
        rows: int,
        group: int | None,
        lane: int,
        preempts: bool = False,
    ) -> list[Batch]:
        """Batches suspended from now on."""
        due_ns = min((r.deadline_ns for r in requests if r.deadline_ns is not None), default=None)
        begun = Batch(
            tuple(r.id for r in requests),
            key,
            lane,
            self._begin_interval(key),
            self.executions[key].load,
            self.now_ns,
            due_ns,
            rows,
            group,
            preempts,
        )
        source, number = key
        self.models[source].running[number] = begun
        below, preempting = self.batches_on(lane, preempts=False), self.batches_on(lane, preempts=True)
        return [batch for batch in (below if preempts else [begun] if preempting else []) if self._suspend(batch)]

    def _end(self, source: int, number: int) -> Batch:
        model = self.models[source]
        ended = model.running.pop(number)
        model.ended.append(number)
        if not ended.suspended:
            ended.interval.end_ns = self.now_ns
        if ended.preempts and not self.batches_on(ended.lane, preempts=True):
            for below in self.batches_on(ended.lane, preempts=False):
                below.suspended = False
                below.interval = self._begin_interval(below.key)
        return ended

    def _suspend(self, batch: Batch) -> bool:
        """False where it was suspended before."""
        if batch.suspended:
            return False
        batch.suspended = batch.was_suspended = True
        batch.interval.end_ns = self.now_ns
        return True

    def _begin_interval(self, key: BatchKey) -> Interval:
        """A stretch of a batch's time on the device, from now on."""
        return self.intervals.begin(self.executions[key].parts, self.now_ns)

    def _measured(
        self, model: Model, batch: Batch, executed: Interval, exec_ns: int, function: SlowdownFunction
    ) -> None:
        """Record its solo latency: all that it took, where it had no co-runners."""
        rows, group = batch.rows, batch.group
        assert group is not None
        if not self.intervals.had_co_runners(executed):
            model.solo.measured(rows, group, exec_ns, self.now_ns)
        elif model.solo.teaches(rows, group, exec_ns):
            slowdown = function.slowdown(self.intervals.suffered(batch.interval, self.seen_ns)[FEATURES:])
            self.guessed += 1
            model.solo.measured(rows, group, exec_ns / max(1.0, slowdown), self.now_ns)
