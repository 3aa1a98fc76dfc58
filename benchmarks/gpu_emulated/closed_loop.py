"""A high class's latency next to a closed loop of a low one, over its latency alone. Emulated."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from math import ceil

import msgspec
import numpy as np

from backend.load.arrivals import NO_DEADLINE_MS, Arrival
from backend.load.outcomes import Outcome, percentile
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Arrive, Command, Event, Finish, Launch, Request
from backend.simulation.contention import LinearContention
from backend.simulation.simulator import simulate
from benchmarks.gpu_emulated.drawn_gpu import OVERHEAD_NS, drawn_gpu
from benchmarks.gpu_emulated.plan import ClosedLoop
from benchmarks.gpu_emulated.runs import models_of, rival_on

HIGH_SLO = 4.0
"""Deadline of a high request over its solo latency."""
_HIGH, _LOW = 0, 1
"""Of a draw's models."""
_LOW_SOURCE = 1 + _LOW
"""Sources are numbered from 1."""


class ClosedFigures(msgspec.Struct, frozen=True):
    """p99 of the high class next to the closed loop, and alone; answers of the low one per second."""

    rival: str
    draw: int
    lanes: int
    outstanding: int
    p99_ms: float
    alone_p99_ms: float
    low_per_s: float

    @property
    def ratio(self) -> float:
        return self.p99_ms / self.alone_p99_ms


class ClosedLoopScheduler(Scheduler):
    """A scheduler that is given a source's requests one for one as earlier ones are answered, until `until_ns`.

    inner: decides. Those that come are kept back; `outstanding` of them wait or run at any time.
    """

    def __init__(self, inner: Scheduler, source: int, outstanding: int, until_ns: int) -> None:
        self._inner, self.device = inner, inner.device
        self._looped, self._free, self._until_ns = source, outstanding, until_ns
        self._kept_back: deque[Request] = deque()
        self._rows: dict[int, int] = {}

    def handle(self, source: int, event: Event, now_ns: int) -> list[Command]:
        """See `Scheduler.handle`."""
        commands: list[Command] = []
        if source == self._looped and isinstance(event, Arrive):
            self._kept_back += event.requests
        else:
            commands = self._noted(self._inner.handle(source, event, now_ns))
            if source == self._looped and isinstance(event, Finish):
                self._free += self._rows.pop(event.batch)
        while self._free and self._kept_back and now_ns < self._until_ns:
            self._free -= 1
            request = msgspec.structs.replace(self._kept_back.popleft(), arrival_ns=now_ns)
            commands += self._noted(self._inner.handle(self._looped, Arrive((request,)), now_ns))
        return commands

    def wake_after_ns(self, reject_within_ns: float = 0.0) -> float:
        """See `Scheduler.wake_after_ns`."""
        return self._inner.wake_after_ns(reject_within_ns)

    def wake(self, now_ns: int) -> list[Command]:
        """See `Scheduler.wake`."""
        return self._noted(self._inner.wake(now_ns))

    def learn(self) -> int:
        """See `Scheduler.learn`."""
        return self._inner.learn()

    def _noted(self, commands: list[Command]) -> list[Command]:
        for command in commands:
            if isinstance(command, Launch) and command.source == self._looped:
                self._rows[command.batch] = len(command.requests)
        return commands


def closed_loop(rival: str, draw: int, lanes: int, outstanding: int, loop: ClosedLoop) -> ClosedFigures:
    """Run a rival with the closed loop and without. Nothing is rejected."""
    both, low_per_s = _high_latencies(rival, draw, lanes, outstanding, loop)
    alone, _ = _high_latencies(rival, draw, lanes, 0, loop)
    return ClosedFigures(rival, draw, lanes, outstanding, percentile(both, 99), percentile(alone, 99), low_per_s)


def _high_latencies(rival: str, draw: int, lanes: int, outstanding: int, loop: ClosedLoop) -> tuple[list[float], float]:
    drawn = drawn_gpu(draw, 2)
    seconds = loop.warm_s + loop.seconds
    high, low = drawn.models[_HIGH], drawn.models[_LOW]
    # No slot of the loop is faster than the model alone.
    low_most = ceil(outstanding * seconds * 1e9 / low.solo_ns(1)) + outstanding
    plan = [Arrival(0.0, low.name, NO_DEADLINE_MS, 2)] * low_most
    plan += [
        Arrival(float(at_s), high.name, HIGH_SLO * high.solo_ns(1) / 1e6, 1)
        for at_s in np.arange(loop.gap_s / 2, seconds, loop.gap_s)
    ]
    inner = rival_on(drawn, rival).scheduler(lanes, LinearContention(), ())
    scheduler = ClosedLoopScheduler(inner, _LOW_SOURCE, outstanding, round(seconds * 1e9))
    models = [replace(model, rejects=False) for model in models_of(drawn, rival)]
    outcomes = simulate(models, plan, scheduler, drawn.device(), OVERHEAD_NS).outcomes()
    counted = [o for o in outcomes if _counts(o, loop.warm_s, seconds)]
    answered = sum(o.priority == 2 for o in counted)
    return [o.latency_ms for o in counted if o.priority == 1], answered / loop.seconds


def _counts(outcome: Outcome, warm_s: float, seconds: float) -> bool:
    at_s = outcome.intended_s if outcome.priority == 1 else outcome.answered_s
    return outcome.status == "ok" and warm_s <= at_s < seconds
