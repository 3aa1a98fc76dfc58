"""Runs that measure a model as it loads, as launches of the lowest class that the device's scheduler decides.

So they wait for a lane that is free, and for a moment at which no deadline is expected to be hurt; batches beside them
are forecast beside them; and what they take beside others counts less by the slowdown that was predicted for them.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from backend.config.model_config import ModelConfig
from backend.engines.protocol import Engine
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.linux.loading_priority import LOADING
from backend.model_process.batch import Answered, Batch
from backend.model_process.dispatcher import Dispatcher
from backend.model_process.loading.joining import LOWEST_CLASS, NEXT_CLASS, PATIENCE_S, join_to_load
from backend.model_process.placement import in_engine_process
from backend.model_process.request import Pending
from backend.scheduler.messages import Reject
from backend.tensors import Array
from profiler.brief import batch_sizes

WAIT_MAX_S = 5.0
"""Time that one then waits for the scheduler's leave, before it goes without."""
_ATTEMPTS = 3
"""Of a run that is suspended for another model's batch, whose time tells little."""
_SPENT_NS = 1 << 60
"""Added to the clock when patience is at an end: no budget lasts so long."""
_log = logging.getLogger("isochrone")


@dataclass
class _Asked:
    """A run that was asked for; what it took comes to `taken`."""

    batch_size: int
    taken: SimpleQueue[_Taken | Exception] = field(default_factory=SimpleQueue)


@dataclass(frozen=True)
class _Taken:
    """exec_ns: measured; slowdown: predicted at the launch, 1.0 or more; suspended: for another model's batch."""

    exec_ns: int
    slowdown: float = 1.0
    suspended: bool = False


class ProfileRuns:
    """Runs of one model, which is not served yet. inputs: see `load_profile.Inputs`.

    A context manager; it joins the device's scheduler with the first run. Where none is to be had, runs go without.
    """

    def __init__(
        self, config: ModelConfig, engine: Engine, inputs: Callable[[int | None], Mapping[str, Array]]
    ) -> None:
        self._config, self._engine, self._inputs = config, engine, inputs
        self._outputs = [spec.name for spec in config.outputs]
        self._ids = itertools.count(1)
        self._dispatcher: Dispatcher | None = None
        self._joined = False
        self._spent_ns, self._waited_s = 0, 0.0

    def __enter__(self) -> ProfileRuns:
        return self

    def __exit__(self, *_: object) -> None:
        if self._dispatcher is not None:
            self._dispatcher.close()

    def run(self, batch_size: int) -> int:
        """Nanoseconds that one batch takes alone, as far as can be told. Raises EngineError."""
        if not self._joined:
            self._joined = True
            sizes = batch_sizes(max(1, self._config.max_batch_size))
            self._dispatcher = join_to_load(self._config, self._first_run(batch_size), sizes, _Runner(self))
        for _ in range(_ATTEMPTS):
            taken = self._scheduled(batch_size)
            if not taken.suspended or not self.patient:
                break
        return max(1, round(taken.exec_ns / taken.slowdown))

    @property
    def patient(self) -> bool:
        """True while runs may wait for gaps."""
        return self._waited_s < PATIENCE_S

    def clock(self) -> int:
        """Nanoseconds that runs took so far, without their waits: what a budget of runs is measured by."""
        return self._spent_ns + (0 if self.patient else _SPENT_NS)

    def execute(self, batch_size: int, lane: int, executing: ExecutionPriority) -> int:
        """Run a batch now; returns what it took. Raises EngineError."""
        feeds = self._inputs(batch_size if self._config.max_batch_size > 0 else None)
        given = {name: [array] for name, array in feeds.items()}
        return self._engine.run(lane, given, self._outputs, executing).exec_ns

    def _first_run(self, batch_size: int) -> int:
        """Nanoseconds of a run before anything is known that a launch could be decided by: at the lowest priority.

        On a CPU its own time counts, not that of what it gives way to.
        """
        own = self._config.on_cpu and not in_engine_process(self._config)
        with LOADING:
            began_ns = time.thread_time_ns()
            exec_ns = self.execute(batch_size, 0, ORDINARY_PRIORITY)
            return max(1, min(exec_ns, time.thread_time_ns() - began_ns) if own else exec_ns)

    def _scheduled(self, batch_size: int) -> _Taken:
        if self._dispatcher is None:
            return self._unscheduled(batch_size)
        was_patient = self.patient
        began_s, spent_before_ns = time.monotonic(), self._spent_ns
        try:
            taken = self._ask(self._dispatcher, batch_size)
        finally:
            self._waited_s += time.monotonic() - began_s - (self._spent_ns - spent_before_ns) / 1e9
        if was_patient and not self.patient:
            _log.warning(
                "isochrone: model '%s': its profile waited %.1f s for the device to have time for it, so it is less "
                "exact than usual, and measured again at the next load",
                *(self._config.name, self._waited_s),
            )
        return taken

    def _ask(self, dispatcher: Dispatcher, batch_size: int) -> _Taken:
        """Ask for a run at the lowest class; after a while at the next, and after a while more for none."""
        left_s = max(0.0, PATIENCE_S - self._waited_s)
        for priority, wait_s in ((LOWEST_CLASS, left_s), (NEXT_CLASS, WAIT_MAX_S)):
            if not wait_s:
                continue
            asked = _Asked(batch_size)
            now_ns = time.monotonic_ns()
            request = Pending(next(self._ids), asked, {}, (), batch_size, 0, now_ns, None, priority)
            dispatcher.submit([request])
            try:
                found = asked.taken.get(timeout=wait_s)
            except Empty:
                if dispatcher.cancel(request):
                    continue
                found = asked.taken.get()  # it runs already
            return self._counted(found)
        return self._unscheduled(batch_size)

    def _unscheduled(self, batch_size: int) -> _Taken:
        return self._counted(_Taken(self.execute(batch_size, 0, ORDINARY_PRIORITY)))

    def _counted(self, found: _Taken | Exception) -> _Taken:
        if isinstance(found, Exception):
            raise found
        self._spent_ns += found.exec_ns
        return found


class _Runner:
    """Executes the runs on their lanes; nobody else hears of them."""

    separate = False

    def __init__(self, runs: ProfileRuns) -> None:
        self._runs = runs

    def run(self, batch: Batch, executing: ExecutionPriority) -> list[Answered]:
        """See `dispatcher.Runner`."""
        asked: _Asked = batch.requests[0].sender
        try:
            batch.exec_ns = max(1, self._runs.execute(asked.batch_size, batch.lane, executing))
        except Exception as error:
            return [error]
        return [[]]

    def answer(self, batch: Batch, answers: Sequence[Answered]) -> None:
        """See `dispatcher.Runner`."""
        asked: _Asked = batch.requests[0].sender
        (answer,) = answers
        if isinstance(answer, Exception):
            asked.taken.put(answer)
            return
        times = None if batch.launch is None else batch.launch.times
        slowdown = 1.0 if times is None else max(1.0, times.predicted_ns / times.solo_ns)
        asked.taken.put(_Taken(batch.exec_ns, slowdown, batch.preempted))

    def reject(self, request: Pending, reject: Reject) -> None:
        """See `dispatcher.Runner`: requests without a deadline are never rejected."""
        raise AssertionError(f"{request.id} was rejected: {reject}")
