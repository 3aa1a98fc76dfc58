"""A model's queue and its running batches: launched as the scheduler decides, or in order while there is none.

Knows neither Triton nor the engine: the `Runner` executes batches and answers requests.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from itertools import islice
from queue import SimpleQueue
from typing import Protocol

import msgspec

from backend.linux.execution_priority import ExecutionPriority
from backend.model_process.batch import Answered, Batch
from backend.model_process.lane_threads import Lanes
from backend.model_process.metrics import Metrics
from backend.model_process.request import Pending
from backend.model_process.scheduler_client import SchedulerClient
from backend.scheduler.messages import (
    Adopt,
    AdoptedBatch,
    Arrive,
    Cancel,
    Decided,
    DeviceLoad,
    Event,
    Finish,
    Join,
    Launch,
    Lease,
    Ping,
    Preempted,
    Recall,
    Reject,
    Request,
    Return,
    Take,
)

_log = logging.getLogger("isochrone")
_MAX_REQUESTS_PER_MESSAGE = 512
_LANE_FIRST_S = 0.0001
"""Sleep of Triton's thread after a launch by lease: it would keep Python's lock for some 0.2 ms more, and the lane that
was just woken would wait for it. Nothing else is due on that thread then."""


class Runner(Protocol):
    """Executes a model's batches and answers its requests.

    separate: whether the outputs of a batch showed that the model's requests cannot share one.
    """

    separate: bool

    def run(self, batch: Batch, executing: ExecutionPriority) -> list[Answered]:
        """Execute a batch, in the context that is for this, setting its times; an answer per request."""

    def answer(self, batch: Batch, answers: Sequence[Answered]) -> None:
        """Send the answers of a batch."""

    def reject(self, request: Pending, reject: Reject) -> None:
        """Refuse a request that the scheduler rejected."""


class Dispatcher:
    """Launches, rejects, cancels or drops every waiting request exactly once."""

    def __init__(
        self,
        device: str,
        lanes: int,
        join: Join,
        runner: Runner,
        metrics: Metrics,
        pinned_to: Sequence[int] | None,
    ) -> None:
        self._join, self._runner, self._metrics = join, runner, metrics
        self._lock = threading.Lock()
        self._waiting: dict[int, Pending] = {}
        self._running: dict[int, Batch] = {}
        self._connected = True
        self._own_batches = 0
        self._arrivals = 0
        self._lease: tuple[Lease, int] | None = None
        """Lease that lets the next request launch without asking, and the time that deciding on it took."""
        self._backlog_ns = 0
        """As predicted last; kept while no scheduler answers."""
        self.loads: SimpleQueue[DeviceLoad] = SimpleQueue()
        """Answers to `ask`."""
        self._take: Take | None = None
        """Tells the scheduler of a launch by lease; due before any other event."""
        self._client = SchedulerClient(device, lanes, join, self)
        self._client.open()
        self._lanes = Lanes(self._client.lanes, self._run, pinned_to, runs_again=True)

    def __len__(self) -> int:
        return len(self._waiting)

    def gauges(self) -> dict[str, float]:
        """Read how much waits and runs here, by the metrics' names."""
        waiting, running = len(self._waiting), len(self._running)
        backlog_ms = self._backlog_ns / 1e6 if waiting or running else 0.0
        return {
            "isochrone_waiting_requests": waiting,
            "isochrone_running_batches": running,
            "isochrone_backlog_ms": backlog_ms,
        }

    @property
    def connected(self) -> bool:
        """True while there is a scheduler."""
        return self._connected

    @property
    def under_way(self) -> int:
        """Requests that wait or run here."""
        with self._lock:
            return len(self._waiting) + sum(len(batch.requests) for batch in self._running.values())

    def ask(self, asks: int, priority: int) -> bool:
        """Ask the scheduler for the device's load, which comes to `loads`; False where there is none."""
        with self._lock:
            self._send_take()
            return self._connected and self._client.send(Ping(asks, priority))

    def submit(self, requests: Sequence[Pending]) -> None:
        """Queue requests, oldest first; launch at once where a lease lets them."""
        with self._lock:
            leased = None if self._lease is None else self._launch_by_lease(*self._lease, requests)
            if leased is None:
                self._queue(requests)
                return
        time.sleep(_LANE_FIRST_S)
        with self._lock:
            self._send_take()
        self._metrics.decided(leased)

    def _queue(self, requests: Sequence[Pending]) -> None:
        for r in requests:
            self._waiting[r.id] = r
        if self._connected:
            self._announce(requests)
        else:
            self._launch_in_order()

    def _launch_by_lease(self, lease: Lease, took_ns: int, requests: Sequence[Pending]) -> Decided | None:
        """Launch first, then tell, if it is one request such as the lease is for, in time, and nothing else is here."""
        r = requests[0]
        if len(requests) > 1 or (r.rows, r.group) != (lease.rows, lease.group) or self._waiting or self._running:
            return None
        now_ns = time.monotonic_ns()
        times = lease.times
        if r.deadline_ns is not None and now_ns + times.h2d_ns + times.bound_ns + times.d2h_ns > r.deadline_ns:
            return None
        self._own_batches -= 1
        launch = Launch(lease.source, self._own_batches, lease.lane, False, (r.id,), times, "launch", 0)
        batch = Batch(launch.batch, launch.lane, requests, launch, now_ns, leased=True)
        self._running[batch.id] = batch
        self._lanes.submit(batch)
        self._backlog_ns = (times.h2d_ns + times.predicted_ns + times.d2h_ns) // max(1, self._client.lanes)
        self._take = Take(batch.id, _as_message(r))
        return Decided((launch,), took_ns)

    def waiting_since(self, before_ns: int, after: int, limit: int) -> list[Pending]:
        """Waiting requests that arrived before `before_ns` and have an id above `after`; at most `limit`."""
        with self._lock:
            old = (r for r in self._waiting.values() if r.id > after and r.arrival_ns < before_ns)
            return list(islice(old, limit))

    def cancel(self, request: Pending) -> bool:
        """Take a request out; False where it is not waiting any more: its batch runs or it was answered."""
        with self._lock:
            if self._waiting.pop(request.id, None) is None:
                return False
            if self._connected:
                self._send(Cancel((request.id,)))
            return True

    def close(self) -> list[Pending]:
        """Stop; returns what was still waiting, for the caller to answer."""
        self._client.close()
        with self._lock:  # before the lanes close: without a scheduler a batch that ends launches the next one
            left = list(self._waiting.values())
            self._waiting.clear()
        self._lanes.close()
        return left

    # Decisions of the scheduler, on its client's thread: see `scheduler_client.Listener`

    def decided(self, decided: Decided) -> None:
        """Carry out commands, then record them."""
        if decided.backlog_ns is not None:
            self._backlog_ns = decided.backlog_ns
        if decided.load is not None:
            self.loads.put(decided.load)
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
                    self._runner.reject(request, command)
        self._metrics.decided(decided)

    def _launch(self, launch: Launch) -> None:
        with self._lock:
            requests = [r for i in launch.requests if (r := self._waiting.pop(i, None)) is not None]
            if not requests:  # all were cancelled meanwhile
                self._send(Finish(launch.batch, None))
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
            if lease.arrivals == self._arrivals:  # else an `Arrive` sent meanwhile gave it up
                self._lease = (lease, took_ns)

    def _recalled(self, recall: Recall) -> None:
        with self._lock:
            if self._lease is not None and self._lease[0].lease == recall.lease:
                self._lease = None
                self._send(Return(recall.lease))

    def lost(self) -> None:
        """Launch in order of arrival from now on."""
        with self._lock:
            self._connected, self._lease, self._take, self._arrivals = False, None, None, 0
            self._launch_in_order()

    def restored(self) -> None:
        """Tell a new scheduler what runs, then what waits."""
        with self._lock:
            running = list(self._running.values())
            for batch in running:
                self._renumber(batch)
            self._connected = True
            if running:
                self._send(Adopt(tuple(AdoptedBatch(b.id, b.rows, b.lane, b.preempts) for b in running)))
            self._announce(list(self._waiting.values()))

    def awaits_decision(self) -> bool:
        """True while requests wait."""
        return bool(self._waiting)

    def _announce(self, requests: Sequence[Pending]) -> None:
        for i in range(0, len(requests), _MAX_REQUESTS_PER_MESSAGE):
            chunk = requests[i : i + _MAX_REQUESTS_PER_MESSAGE]
            self._lease = None
            self._arrivals += 1
            self._send(Arrive(tuple(map(_as_message, chunk))))

    def _send(self, event: Event) -> None:
        self._send_take()
        self._client.send(event)

    def _send_take(self) -> None:
        if self._take is not None:
            self._client.send(self._take)
            self._take = None

    # Without a scheduler: in order of arrival, as soon as one of our lanes is free

    def _launch_in_order(self) -> None:
        while self._waiting and (lane := self._free_lane()) is not None:
            self._own_batches -= 1
            batch = Batch(self._own_batches, lane, self._take_in_order(), None, time.monotonic_ns())
            self._running[batch.id] = batch
            self._lanes.submit(batch)

    def _free_lane(self) -> int | None:
        busy = {batch.lane for batch in self._running.values() if not batch.preempts}
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

    def _run(self, batch: Batch, executing: ExecutionPriority) -> None:
        answers: list[Answered]
        try:
            answers = self._runner.run(batch, executing)
        except Exception as error:  # whatever a model does, its requests are answered and its lane goes on
            answers = [error] * len(batch.requests)
        if self._runner.separate and self._join.max_batch_size > 1:
            self._limit_batches(1)
        with self._lock:
            known = self._running.get(batch.id)
            if known is None or known.ended:  # it was run twice, and this is the second end
                return
            known.ended = True
        # Answers first: their thread gets going while this one is in the system call that tells the scheduler.
        try:
            self._runner.answer(batch, answers)
        except Exception:  # a bug of ours: the batch has ended all the same, and its lane goes on
            _log.exception("isochrone: a batch could not be answered")
        with self._lock:
            del self._running[batch.id]
            if not self._running and not self._waiting:
                self._backlog_ns = 0
            if self._connected:
                self._send(batch.finish(failed=any(isinstance(answer, Exception) for answer in answers)))
            else:
                self._launch_in_order()
        self._metrics.batch_ended(batch, answers)

    def _limit_batches(self, rows: int) -> None:
        """Limit the rows of later batches; one that is launched already is left as it is."""
        with self._lock:
            self._join = msgspec.structs.replace(self._join, max_batch_size=rows)
            self._send_take()
            self._client.limit(rows)


def _as_message(r: Pending) -> Request:
    """A request as the scheduler knows it."""
    return Request(r.id, r.rows, r.arrival_ns, r.deadline_ns, r.priority, r.group)
