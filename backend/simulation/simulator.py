"""Runs the production scheduler over planned arrivals in virtual time. No clock, no thread, no device."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, inf

from backend.load.arrivals import NO_DEADLINE_MS, Arrival
from backend.load.outcomes import Outcome
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import (
    PROTOCOL,
    Arrive,
    Command,
    Finish,
    Join,
    Launch,
    Preempted,
    Recall,
    Reject,
    Request,
    Return,
)
from backend.simulation.device import EndedBatch, Key, SimulatedDevice
from predictor.features import Own
from predictor.workload import ModelProfile


@dataclass(frozen=True)
class SimulatedModel:
    """A model as its config.pbtxt has it. bytes_in, bytes_out: of a row's inputs and outputs."""

    name: str
    profile: ModelProfile
    max_batch_size: int = 8
    interference_aware: bool = True
    rejects: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    preemptible_lanes: int = 0
    """See `Join`."""

    @property
    def join(self) -> Join:
        """Message by which its process joins the scheduler."""
        return Join(
            PROTOCOL,
            self.name,
            "1",
            self.max_batch_size,
            None,
            self.profile,
            self.interference_aware,
            self.rejects,
            self.preemptible_lanes,
        )


@dataclass(slots=True)
class SimulatedRequest:
    """One request. answered_s: from the start of the load; None where it was rejected."""

    arrival: Arrival
    answered_s: float | None = None

    @property
    def outcome(self) -> Outcome:
        """Outcome as a client sees it; a rejection comes at once."""
        a, answered_s = self.arrival, self.answered_s
        if answered_s is None:
            return Outcome(a.model, a.at_s, a.at_s, a.at_s, a.slo_ms, a.priority, "rejected")
        return Outcome(a.model, a.at_s, a.at_s, answered_s, a.slo_ms, a.priority, "ok")


@dataclass
class SimulationResult:
    """Results of a simulation. busy_s: of all lanes together; predicted: per batch, predicted and measured ns of its
    execution; moved: the same of each transfer, in or out.
    """

    requests: list[SimulatedRequest]
    seconds: float = 0.0
    busy_s: float = 0.0
    batches: int = 0
    predicted: list[tuple[int, int]] = field(default_factory=list)
    moved: list[tuple[int, int]] = field(default_factory=list)

    def outcomes(self) -> list[Outcome]:
        return [request.outcome for request in self.requests]


def simulate(
    models: Sequence[SimulatedModel],
    plan: Iterable[Arrival],
    scheduler: Scheduler,
    device: SimulatedDevice,
    overhead_ns: int = 0,
) -> SimulationResult:
    """The whole plan, and until the last answer; `scheduler` and `device` are new ones.

    overhead_ns: on a lane beside each execution, which neither slows nor is slowed.
    """
    run = DeviceRun(models, scheduler, device, overhead_ns)
    for arrival in plan:
        run.until(round(arrival.at_s * 1e9))
        run.arrive(arrival)
    run.until(None)
    return run.ran


class DeviceRun:
    """One device and its scheduler, request by request. over: called with the number of each request that is answered
    or rejected, in the order of their arrivals, and the time in nanoseconds.
    """

    def __init__(
        self,
        models: Sequence[SimulatedModel],
        scheduler: Scheduler,
        device: SimulatedDevice,
        overhead_ns: int,
        over: Callable[[int, int], None] | None = None,
    ) -> None:
        self.ran = SimulationResult([])
        self._over = over
        self._scheduler, self._device = scheduler, device
        self._overhead_ns = overhead_ns
        self._models: Mapping[str, tuple[int, SimulatedModel]] = {m.name: (i, m) for i, m in enumerate(models, 1)}
        self._names = dict(self._models.values())
        self._owns: dict[tuple[int, int], Own] = {}
        self._launches: dict[Key, Launch] = {}
        self._reports: list[tuple[int, EndedBatch]] = []
        """Batches that ended, and when the scheduler hears of it."""
        for source, model in self._models.values():
            self._scheduler.handle(source, model.join, 0)

    def source_of(self, model: str) -> int:
        """Number by which the scheduler knows a model."""
        return self._models[model][0]

    def arrive(self, arrival: Arrival) -> None:
        """Let a request arrive. Nothing is due before."""
        source, _ = self._models[arrival.model]
        number, now_ns = len(self.ran.requests), round(arrival.at_s * 1e9)
        self.ran.requests.append(SimulatedRequest(arrival))
        due_ns = None if arrival.slo_ms >= NO_DEADLINE_MS else now_ns + round(arrival.slo_ms * 1e6)
        request = Request(number, 1, now_ns, due_ns, arrival.priority)
        self._obey(self._scheduler.handle(source, Arrive((request,)), now_ns), now_ns)

    @property
    def next_ns(self) -> int | None:
        """Instant at which something happens by itself; None: nothing will."""
        found = [self._reports[0][0]] if self._reports else []
        if (next_ns := self._device.next_ns) is not None:
            found.append(ceil(next_ns))
        if not found and (wake_ns := self._scheduler.wake_after_ns()) < inf:
            found.append(floor(wake_ns) + 1)
        return min(found, default=None)

    def until(self, end_ns: int | None) -> None:
        """Let batches finish up to that instant; None: all of them."""
        while True:
            next_ns = self._device.next_ns
            report_ns = self._reports[0][0] if self._reports else None
            if report_ns is not None and (next_ns is None or report_ns <= next_ns):
                if end_ns is not None and report_ns > end_ns:
                    return
                self._report(*heapq.heappop(self._reports))
            elif next_ns is not None:
                if end_ns is not None and next_ns > end_ns:
                    return
                if (ended := self._device.step()) is not None:
                    self._ended(round(next_ns), ended)
            else:
                wake_ns = self._scheduler.wake_after_ns()  # on an idle device nothing else would come to pass
                if wake_ns == inf or (end_ns is not None and wake_ns >= end_ns):
                    return
                now_ns = floor(wake_ns) + 1
                self._obey(self._scheduler.wake(now_ns), now_ns)

    def _ended(self, now_ns: int, ended: EndedBatch) -> None:
        if self._overhead_ns:
            heapq.heappush(self._reports, (now_ns + self._overhead_ns, ended))
        else:
            self._report(now_ns, ended)

    def _report(self, now_ns: int, ended: EndedBatch) -> None:
        (source, batch), exec_ns, h2d_ns, d2h_ns = ended
        launch, ran = self._launches.pop(ended.key), self.ran
        for number in launch.requests:
            ran.requests[number].answered_s = now_ns / 1e9
            if self._over is not None:
                self._over(number, now_ns)
        ran.batches += 1
        ran.busy_s += (h2d_ns + exec_ns + d2h_ns + self._overhead_ns) / 1e9
        ran.seconds = now_ns / 1e9
        ran.predicted.append((launch.times.predicted_ns, exec_ns))
        if h2d_ns:
            ran.moved.append((launch.times.h2d_ns, h2d_ns))
        if d2h_ns:
            ran.moved.append((launch.times.d2h_ns, d2h_ns))
        moved = self._bytes(source, len(launch.requests))
        commands = self._scheduler.handle(source, Finish(batch, exec_ns, h2d_ns, d2h_ns, *moved), now_ns)
        self._scheduler.learn()
        self._obey(commands, now_ns)

    def _obey(self, commands: list[Command], now_ns: int) -> None:
        preempted: list[Key] = []
        for command in commands:
            if isinstance(command, Preempted):  # by the launch that follows
                preempted.append((command.source, command.batch))
            elif isinstance(command, Launch):
                self._launch(command, now_ns, preempted)
                preempted = []
            elif isinstance(command, Reject) and self._over is not None:
                self._over(command.request, now_ns)
            elif isinstance(command, Recall):  # a lease saves a round trip, and here there is none
                self._obey(self._scheduler.handle(command.source, Return(command.lease), now_ns), now_ns)

    def _launch(self, launch: Launch, now_ns: int, preempted: Sequence[Key]) -> None:
        key, rows = (launch.source, launch.batch), len(launch.requests)
        own = self._owns.get((launch.source, rows))
        if own is None:
            model = self._names[launch.source]
            own = self._owns[launch.source, rows] = Own(model.name, rows, model.profile.at(rows))
        self._launches[key] = launch
        core = self._scheduler.device.core_of(launch.lane)
        self._device.start(key, own, now_ns, *self._bytes(launch.source, rows), preempted=preempted, core=core)

    def _bytes(self, source: int, rows: int) -> tuple[int, int]:
        """Bytes of a batch's inputs and outputs."""
        model = self._names[source]
        return rows * model.bytes_in, rows * model.bytes_out
