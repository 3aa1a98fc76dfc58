"""The production scheduler, lanes and engines in one process, without a server: arrivals in, outcomes and samples out.

What a server adds, which is transport and a process per model, is missing from the latencies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from backend.engines.protocol import Engine
from backend.linux.execution_priority import ExecutionPriority
from backend.load.arrivals import NO_DEADLINE_MS, Arrival
from backend.load.outcomes import Outcome, Status
from backend.model_process.batch import Batch, feeds
from backend.model_process.lane_threads import Lanes
from backend.model_process.request import Pending
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Arrive, Command, Finish, Launch, Recall, Reject, Request, Return
from backend.scheduler.running_batch import RunningBatch
from backend.scheduler.source import Source
from backend.scheduler_process.sample_log import SampleLog, sample_of_batch
from backend.simulation.simulator import SimulatedModel
from backend.tensors import Array
from benchmarks.harness.errors import BenchmarkError
from predictor.features import CoRunner

_PATIENCE_S = 60.0
_LEAD_S = 0.02
_PROGRESS_S = 0.5


@dataclass(frozen=True)
class ServedEngine:
    """model: as the scheduler is told of it. inputs: one request's, of one row each."""

    model: SimulatedModel
    engine: Engine
    inputs: dict[str, Array]


@dataclass(slots=True)
class _OpenRequest:
    """A request under way. sent_s, answered_s: from the start of the load."""

    arrival: Arrival
    pending: Pending
    sent_s: float
    answered_s: float = 0.0
    status: Status = "failed"
    error: str = "no answer"

    @property
    def outcome(self) -> Outcome:
        return self.arrival.outcome(self.sent_s, self.answered_s, self.status, self.error)


@dataclass(frozen=True, slots=True)
class _LaneResult:
    """Result that a lane's thread hands back. error: empty where the batch ran."""

    batch: Batch
    error: str
    at_ns: int


class InProcess:
    """A device with a scheduler that has learned nothing. To be closed.

    device: its name in samples. pinned_to: the lanes' cores, None where lanes are not cores.
    """

    def __init__(
        self, served: Sequence[ServedEngine], lanes: int, device: str, pinned_to: Sequence[int] | None
    ) -> None:
        self._device = device
        self._served = dict(enumerate(served, 1))
        self._sources = {s.model.name: source for source, s in self._served.items()}
        self._scheduler = Scheduler(lanes, self._observe, cores=None if pinned_to is None else len(pinned_to))
        self._samples: SampleLog | None = None
        self._ended = SimpleQueue[_LaneResult]()
        self._asked: list[_OpenRequest] = []
        self._open = 0
        self._began_ns = 0
        for source, s in self._served.items():
            self._scheduler.handle(source, s.model.join, time.monotonic_ns())
        self._lanes = Lanes(lanes, self._work, pinned_to)

    def run(
        self,
        plan: Sequence[Arrival],
        samples: SampleLog | None = None,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> list[Outcome]:
        """Every request at its planned instant, and until the last answer. samples: to which each batch goes.

        Raises BenchmarkError where nothing ends any more.
        """
        self._samples, self._asked = samples, []
        self._began_ns = time.monotonic_ns() + round(_LEAD_S * 1e9)
        told_s = 0.0
        for arrival in plan:
            self._until(self._began_ns + round(arrival.at_s * 1e9))
            self._arrive(arrival)
            if arrival.at_s >= told_s:
                told_s = arrival.at_s + _PROGRESS_S
                on_progress(arrival.at_s)
        self._until(None)
        return [asked.outcome for asked in self._asked]

    def close(self) -> None:
        """The lanes end their batches."""
        self._lanes.close()

    def _until(self, at_ns: int | None) -> None:
        """Let batches finish up to that instant; None: until every request is answered."""
        quiet_ns = time.monotonic_ns()
        while at_ns is not None or self._open:
            end_ns = quiet_ns + round(_PATIENCE_S * 1e9) if at_ns is None else at_ns
            wake_ns = self._scheduler.wake_after_ns()
            left_s = max(0.0, (min(end_ns, wake_ns + 1) - time.monotonic_ns()) / 1e9)
            try:
                self._finish(self._ended.get(timeout=left_s))
                quiet_ns = time.monotonic_ns()
            except Empty:
                now_ns = time.monotonic_ns()
                if wake_ns < now_ns:
                    self._obey(self._scheduler.wake(now_ns), now_ns)
                elif now_ns >= end_ns:
                    if at_ns is not None:
                        return
                    raise BenchmarkError(
                        f"{self._open} requests wait, and no batch ended in {_PATIENCE_S:.0f} s"
                    ) from None

    def _arrive(self, arrival: Arrival) -> None:
        source, now_ns = self._sources[arrival.model], time.monotonic_ns()
        arrived_ns = min(now_ns, self._began_ns + round(arrival.at_s * 1e9))
        due_ns = None if arrival.slo_ms >= NO_DEADLINE_MS else arrived_ns + round(arrival.slo_ms * 1e6)
        request = Request(len(self._asked), 1, arrived_ns, due_ns, arrival.priority)
        served = self._served[source]
        wanted = tuple(spec.name for spec in served.engine.outputs)
        pending = Pending(request.id, None, served.inputs, wanted, 1, 0, arrived_ns, due_ns, arrival.priority)
        self._asked.append(_OpenRequest(arrival, pending, self._since_s(now_ns)))
        self._open += 1
        self._obey(self._scheduler.handle(source, Arrive((request,)), now_ns), now_ns)

    def _finish(self, ended: _LaneResult) -> None:
        batch, launch = ended.batch, ended.batch.launch
        assert launch is not None
        for request in batch.requests:
            self._answer(request.id, "failed" if ended.error else "ok", ended.error, ended.at_ns)
        now_ns = time.monotonic_ns()
        event = batch.finish(failed=bool(ended.error))
        self._obey(self._scheduler.handle(launch.source, event, now_ns), now_ns)
        self._scheduler.learn()

    def _obey(self, commands: Sequence[Command], now_ns: int) -> None:
        for command in commands:
            if isinstance(command, Launch):
                requests = [self._asked[i].pending for i in command.requests]
                self._lanes.submit(Batch(command.batch, command.lane, requests, command, now_ns))
            elif isinstance(command, Reject):
                self._answer(command.request, "rejected", "cannot meet its deadline", now_ns)
            elif isinstance(command, Recall):  # a lease saves a round trip, and here there is none
                self._obey(self._scheduler.handle(command.source, Return(command.lease), now_ns), now_ns)

    def _answer(self, request: int, status: Status, error: str, at_ns: int) -> None:
        asked = self._asked[request]
        asked.answered_s, asked.status, asked.error = self._since_s(at_ns), status, error
        self._open -= 1

    def _since_s(self, at_ns: int) -> float:
        return (at_ns - self._began_ns) / 1e9

    def _observe(self, source: Source, batch: RunningBatch, finish: Finish, co_runners: list[CoRunner]) -> None:
        if self._samples is not None:
            sample = sample_of_batch(source, batch, finish, co_runners, self._device, self._scheduler.device.lanes)
            self._samples.put(source.id, sample)

    # On a lane's thread

    def _work(self, batch: Batch, executing: ExecutionPriority) -> None:
        assert batch.launch is not None
        error = ""
        try:
            given = feeds(batch.requests)
            engine = self._served[batch.launch.source].engine
            ran = engine.run(batch.lane, given, batch.requests[0].wanted, executing, exclusive=batch.leased)
            batch.ran(ran, given)
        except Exception as failure:  # its requests fail, and the lane goes on
            error = str(failure) or repr(failure)
        self._ended.put(_LaneResult(batch, error, time.monotonic_ns()))
