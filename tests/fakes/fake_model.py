"""A model on the real dispatcher and scheduler with a fake runner, whose batches run as long as the test wants."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType

from backend.engines.protocol import BatchResult
from backend.linux.execution_priority import ExecutionPriority
from backend.model_process.batch import Answered, Batch, feeds
from backend.model_process.dispatcher import Dispatcher
from backend.model_process.metrics import Metrics
from backend.model_process.request import Pending
from backend.runtime_dir import meeting_point
from backend.scheduler.messages import Reject
from predictor.workload import ModelProfile
from tests.fakes.builders import join, load

PATIENCE_S = 15.0
"""Limit on waits for what must come; never reached unless the test fails."""
_PROFILE = ModelProfile((1, 8), (load(1.0, 0.1), load(2.0, 0.1)))
_ids = itertools.count(1)


def eventually(condition: Callable[[], object]) -> None:
    """Wait for a condition that no condition variable announces."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "this did not happen"
        time.sleep(0.002)


def pending(slo_ms: float | None = None, rows: int = 1, group: int = 0) -> Pending:
    now_ns = time.monotonic_ns()
    deadline_ns = None if slo_ms is None else now_ns + round(slo_ms * 1e6)
    return Pending(next(_ids), None, {}, (), rows, group, now_ns, deadline_ns, 1)


class FakeModel:
    """A model and its runner. gate: while it is clear, batches that run do not end. Each request must end once."""

    separate = False

    def __init__(
        self, name: str = "m", *, device: str = "cpu", lanes: int | None = 2, rejects: bool = False, most: int = 8
    ) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.changed = threading.Condition()
        self.started: list[Batch] = []
        self.at_once = self.at_once_most = 0
        self.done: dict[int, Batch] = {}
        self.results: dict[int, Answered] = {}
        self.rejects: dict[int, Reject] = {}
        self.ends: Counter[int] = Counter()
        self.error: Exception | None = None
        self.took = BatchResult([], 1_000_000)
        event = join(_PROFILE, model=name, lanes=lanes, rejects=rejects, max_batch_size=most)
        self.dispatcher = Dispatcher(device, lanes or 2, event, self, Metrics(), None)

    def __enter__(self) -> FakeModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> list[Pending]:
        self.gate.set()
        left = self.dispatcher.close()
        assert set(self.ends.values()) <= {1}
        return left

    def submit(self, *requests: Pending) -> list[Pending]:
        self.dispatcher.submit(requests)
        return list(requests)

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds; checked whenever a batch starts or ends."""
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE_S), "this did not happen"

    def wait_for(self, *requests: Pending) -> list[Batch]:
        """Wait until each request ended in a batch; returns those batches."""
        self.wait(lambda: all(r.id in self.done for r in requests))
        return [self.done[r.id] for r in requests]

    def fill(self, lanes: int = 2) -> list[Pending]:
        """Occupy the lanes until the gate is set again."""
        self.gate.clear()
        return [self._occupy_a_lane() for _ in range(lanes)]

    def _occupy_a_lane(self) -> Pending:
        (request,) = self.submit(pending())
        self.wait(lambda: any(request in batch.requests for batch in self.started))
        return request

    def run(self, batch: Batch, _executing: ExecutionPriority) -> list[Answered]:
        """See `Runner`."""
        with self.changed:
            self.started.append(batch)
            self.at_once += 1
            self.at_once_most = max(self.at_once_most, self.at_once)
            self.changed.notify_all()
        assert self.gate.wait(PATIENCE_S)
        with self.changed:
            self.at_once -= 1
        batch.ran(self.took, feeds(batch.requests))
        if self.error is not None:
            raise self.error
        return [[] for _ in batch.requests]

    def answer(self, batch: Batch, answers: Sequence[Answered]) -> None:
        """See `Runner`."""
        with self.changed:
            for request, answer in zip(batch.requests, answers, strict=True):
                self.ends[request.id] += 1
                self.done[request.id] = batch
                self.results[request.id] = answer
            self.changed.notify_all()

    def reject(self, request: Pending, reject: Reject) -> None:
        """See `Runner`."""
        with self.changed:
            self.ends[request.id] += 1
            self.rejects[request.id] = reject
            self.changed.notify_all()


# The real scheduler that it talks to


def scheduler_pid(device: str = "cpu") -> int:
    return int(meeting_point(device).lock.read_text())


def signal_scheduler(signal_number: int, device: str = "cpu") -> None:
    os.kill(scheduler_pid(device), signal_number)


def until_connected(*models: FakeModel) -> None:
    eventually(lambda: all(model.dispatcher._connected for model in models))


def decided_by_a_scheduler(model: FakeModel) -> bool:
    (batch,) = model.wait_for(*model.submit(pending(5_000.0)))
    return batch.launch is not None


def end_batches_while_lanes_close(model: FakeModel) -> None:
    """Open the gate once each lane has been told to end after its batch."""
    workers = model.dispatcher._lanes._workers
    eventually(lambda: all(worker._queue.qsize() == 1 for worker in workers))
    model.gate.set()
