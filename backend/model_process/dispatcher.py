"""A model's queue and its running batches: asks the scheduler, does what it says, launches by itself while it is away.

Knows neither Triton nor the engine: a batch is executed, and its results handed on, by the `Handlers`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from backend.linux.execution_priority import ExecutionPriority
from backend.model_process.batch import Answered, Batch
from backend.model_process.lane_threads import Lanes
from backend.model_process.request import Pending
from backend.model_process.scheduler_client import Callbacks, SchedulerLink
from backend.scheduler.messages import (
    Adopt,
    Arrive,
    Cancel,
    Decided,
    Finish,
    Join,
    Launch,
    Lease,
    Preempted,
    Recall,
    Reject,
    Request,
    Return,
    RunningBatch,
    Take,
)

_log = logging.getLogger("isochrone")
_MAX_REQUESTS_PER_MESSAGE = 512
_LANE_FIRST_S = 0.0001
"""Triton's thread keeps Python's lock for some 0.2 ms after it handed a request over, and a lane that was just woken
would wait for it. Nothing else is due on that thread then."""


@dataclass(frozen=True)
class Handlers:
    """run: execute a batch, in the context that is for this, setting its `exec_ns`; an answer per request.

    done: send these. ended: the scheduler knows of its end, whatever else is to be
    noted may be. rejected: answer so.

    decided: how long the scheduler took and what it said, for the metrics.
    """

    run: Callable[[Batch, ExecutionPriority], list[Answered]]
    done: Callable[[Batch, list[Answered]], None]
    ended: Callable[[Batch, list[Answered]], None]
    rejected: Callable[[Pending, Reject], None]
    decided: Callable[[Decided], None]


class Dispatcher:
    """Every waiting request is launched, rejected, cancelled or dropped exactly once."""

    def __init__(
        self, device: str, lanes: int, join: Join, handlers: Handlers, pinned_to: Sequence[int] | None
    ) -> None:
        self._handlers, self._join = handlers, join
        self._lock = threading.Lock()
        self._waiting: dict[int, Pending] = {}
        self._running: dict[int, Batch] = {}
        self._connected = True
        self._own_batches = 0
        self._arrivals = 0
        self._lease: tuple[Lease, int] | None = None
        """What lets the next request launch without asking, and how long deciding that took."""
        callbacks = Callbacks(self._decided, self._lost, self._restored, self._due)
        self._link = SchedulerLink(device, lanes, join, callbacks)
        self._link.open()
        self._lanes = Lanes(self._link.lanes, self._work, pinned_to, runs_again=True)

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, requests: Sequence[Pending]) -> None:
        """Queue requests, oldest first."""
        with self._lock:
            if self._lease is not None and self._launch_by_lease(*self._lease, requests):
                return
            for r in requests:
                self._waiting[r.id] = r
            if self._connected:
                self._announce(requests)
            else:
                self._launch_in_order()

    def _launch_by_lease(self, lease: Lease, took_ns: int, requests: Sequence[Pending]) -> bool:
        """Launch first, then tell, if it is one request such as the lease is for, in time, and nothing else is here."""
        r = requests[0]
        if len(requests) > 1 or (r.rows, r.group) != (lease.rows, lease.group) or self._waiting or self._running:
            return False
        now_ns = time.monotonic_ns()
        takes_ns = lease.transfer_in_ns + lease.bound_ns + lease.transfer_out_ns
        if r.deadline_ns is not None and now_ns + takes_ns > r.deadline_ns:
            return False
        self._own_batches -= 1
        launch = Launch(
            lease.source,
            self._own_batches,
            lease.lane,
            (r.id,),
            lease.solo_ns,
            lease.predicted_ns,
            lease.bound_ns,
            "launch",
            0,
            lease.transfer_in_ns,
            lease.transfer_out_ns,
        )
        batch = Batch(launch.batch, launch.lane, requests, launch, now_ns, leased=True)
        self._running[batch.id] = batch
        self._lanes.submit(batch)
        time.sleep(_LANE_FIRST_S)
        self._link.send(Take(batch.id, _told(r)))
        self._handlers.decided(Decided((launch,), took_ns))
        return True

    def waiting_since(self, before_ns: int, after: int, limit: int) -> list[Pending]:
        """Up to `limit` requests that arrived before `before_ns` and still wait, of those numbered above `after`."""
        with self._lock:
            old = (r for r in self._waiting.values() if r.id > after and r.arrival_ns < before_ns)
            return list(islice(old, limit))

    def cancel(self, request: Pending) -> bool:
        """Take a request out; False where it is not waiting any more: its batch runs or it was answered."""
        with self._lock:
            if self._waiting.pop(request.id, None) is None:
                return False
            if self._connected:
                self._link.send(Cancel((request.id,)))
            return True

    def limit_batches(self, rows: int) -> None:
        """From now on batches grow to at most so many rows; one that is launched already is left as it is."""
        with self._lock:
            self._join = msgspec.structs.replace(self._join, max_batch_size=rows)
            self._link.limit(rows)

    def close(self) -> list[Pending]:
        """Stop; returns what was still waiting, for the caller to answer."""
        self._link.close()
        with self._lock:  # before the lanes close: without a scheduler a batch that ends launches the next one
            left = list(self._waiting.values())
            self._waiting.clear()
        self._lanes.close()
        return left

    # What the scheduler says, on the link's thread

    def _decided(self, decided: Decided) -> None:
        self._handlers.decided(decided)
        for command in decided.commands:
            if isinstance(command, Launch):
                self._launch(command)
            elif isinstance(command, Preempted):
                self._preempted(command)
            elif isinstance(command, Lease):
                self._leased(command, decided.took_ns)
            elif isinstance(command, Recall):
                self._recalled(command)
            else:
                with self._lock:
                    request = self._waiting.pop(command.request, None)
                if request is not None:
                    self._handlers.rejected(request, command)

    def _launch(self, launch: Launch) -> None:
        with self._lock:
            requests = [r for i in launch.requests if (r := self._waiting.pop(i, None)) is not None]
            if not requests:  # all were cancelled meanwhile
                self._link.send(Finish(launch.batch, None))
                return
            batch = Batch(launch.batch, launch.lane, requests, launch, time.monotonic_ns())
            self._running[batch.id] = batch
        self._lanes.submit(batch)

    def _preempted(self, preempted: Preempted) -> None:
        with self._lock:
            batch = self._running.get(preempted.batch)
        if batch is not None:
            batch.preempted = True
            self._lanes.suspend(batch)

    def _leased(self, lease: Lease, took_ns: int) -> None:
        with self._lock:
            if lease.arrivals == self._arrivals:  # else what was sent meanwhile gave it up
                self._lease = (lease, took_ns)

    def _recalled(self, recall: Recall) -> None:
        with self._lock:
            if self._lease is not None and self._lease[0].lease == recall.lease:
                self._lease = None
                self._link.send(Return(recall.lease))

    def _lost(self) -> None:
        with self._lock:
            self._connected, self._lease, self._arrivals = False, None, 0
            self._launch_in_order()

    def _restored(self) -> None:
        """A scheduler that knows nothing of us: tell it what runs, then what waits."""
        with self._lock:
            running = list(self._running.values())
            for batch in running:
                self._renumber(batch)
            self._connected = True
            if running:
                self._link.send(Adopt(tuple(RunningBatch(b.id, b.rows, b.lane) for b in running)))
            self._announce(list(self._waiting.values()))

    def _due(self) -> bool:
        return bool(self._waiting)

    def _announce(self, requests: Sequence[Pending]) -> None:
        for i in range(0, len(requests), _MAX_REQUESTS_PER_MESSAGE):
            chunk = requests[i : i + _MAX_REQUESTS_PER_MESSAGE]
            self._lease = None
            self._arrivals += 1
            self._link.send(Arrive(tuple(map(_told, chunk))))

    # Without a scheduler: in order of arrival, as soon as one of our lanes is free

    def _launch_in_order(self) -> None:
        while self._waiting and (lane := self._free_lane()) is not None:
            self._own_batches -= 1
            batch = Batch(self._own_batches, lane, self._take_in_order(), None, time.monotonic_ns())
            self._running[batch.id] = batch
            self._lanes.submit(batch)

    def _free_lane(self) -> int | None:
        busy = {batch.lane for batch in self._running.values()}
        return next((lane for lane in range(len(self._lanes)) if lane not in busy), None)

    def _take_in_order(self) -> list[Pending]:
        taken: list[Pending] = []
        rows = 0
        for r in self._waiting.values():
            if taken and (r.group != taken[0].group or rows + r.rows > self._join.max_batch_size):
                break
            taken.append(r)
            rows += r.rows
        for r in taken:
            del self._waiting[r.id]
        return taken

    def _renumber(self, batch: Batch) -> None:
        self._own_batches -= 1
        del self._running[batch.id]
        batch.id = self._own_batches
        self._running[batch.id] = batch

    # On a lane's thread

    def _work(self, batch: Batch, executing: ExecutionPriority) -> None:
        answers: list[Answered]
        try:
            answers = self._handlers.run(batch, executing)
        except Exception as error:  # whatever a model does, its requests are answered and its lane goes on
            answers = [error] * len(batch.requests)
        with self._lock:
            known = self._running.get(batch.id)
            if known is None or known.ended:  # it was run twice, and this is the second end
                return
            known.ended = True
        # Answers first: their thread gets going while this one is in the system call that tells the scheduler.
        try:
            self._handlers.done(batch, answers)
        except Exception:  # a bug of ours: the batch has ended all the same, and its lane goes on
            _log.exception("isochrone: a batch could not be answered")
        with self._lock:
            del self._running[batch.id]
            if self._connected:
                self._link.send(batch.finish(failed=any(isinstance(answer, Exception) for answer in answers)))
            else:
                self._launch_in_order()
        self._handlers.ended(batch, answers)


def _told(r: Pending) -> Request:
    """What the scheduler knows of a request."""
    return Request(r.id, r.rows, r.arrival_ns, r.deadline_ns, r.priority, r.group)
