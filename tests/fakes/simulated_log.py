"""A load in virtual time whose events and samples are written as the scheduler's process does: for tests of reports."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from backend.load.arrivals import Traffic, poisson
from backend.scheduler.core import Scheduler
from backend.scheduler.device_state import DeviceState
from backend.scheduler.messages import Command, Event, Finish
from backend.scheduler.running_batch import RunningBatch
from backend.scheduler.source import Source
from backend.scheduler_process.event_file import Handled, Origin, Trained, Woken
from backend.scheduler_process.event_log import EventLog
from backend.scheduler_process.sample_log import sample_of_batch
from backend.simulation.contention import LinearContention
from backend.simulation.device import VirtualDevice
from backend.simulation.simulator import SimulatedModel, SimulationResult, simulate
from predictor.features import CoRunner
from predictor.samples import encode_sample
from tests.fakes.builders import profile

DEVICE = "virtual-0"


class SimulatedLog(NamedTuple):
    """Both logs of one run, and what came out."""

    events: Path
    samples: Path
    ran: SimulationResult


def model(name: str, solo_ms: float, share: float, *, preemptible_lanes: int = 0) -> SimulatedModel:
    """A model whose batches use this share of the device: others suffer by that, see `write_logs`."""
    return SimulatedModel(name, profile(solo_ms, share), 8, preemptible_lanes=preemptible_lanes)


def write_logs(
    folder: Path,
    models: Sequence[SimulatedModel],
    traffic: Sequence[Traffic],
    seconds: float,
    *,
    lanes: int = 2,
    seed: int = 1,
) -> SimulatedLog:
    """Simulate a Poisson load. A batch is slowed down by 1 + 1.5 × its co-runners' shares, ± a few percent."""
    events, samples = folder / "events.jsonl", folder / "samples.jsonl"
    lines: list[bytes] = []

    def observe(source: Source, batch: RunningBatch, finish: Finish, co_runners: list[CoRunner]) -> None:
        lines.append(encode_sample(sample_of_batch(source, batch, finish, co_runners, DEVICE, lanes)))

    truth = LinearContention((1.5, 0.0, 0.0), residuals=(0.97, 0.99, 1.0, 1.01, 1.03))
    log = EventLog(events, Origin("0.0.0", DEVICE, lanes, None, None, 1, 0))
    logged = _LoggedScheduler(Scheduler(lanes, observe), log)
    try:
        plan = [replace(arrival, at_s=arrival.at_s + 1.0) for arrival in poisson(traffic, seconds, seed)]
        ran = simulate(models, plan, cast(Scheduler, logged), VirtualDevice(truth, seed), 100_000)
    finally:
        log.close()
    samples.write_bytes(b"".join(lines))
    return SimulatedLog(events, samples, ran)


class _LoggedScheduler:
    """All that a simulation calls of a scheduler, each call written down."""

    def __init__(self, core: Scheduler, log: EventLog) -> None:
        self._core, self._log = core, log
        log.checkpoint(core, 0)

    @property
    def device(self) -> DeviceState:
        return self._core.device

    def handle(self, source: int, event: Event, now_ns: int) -> list[Command]:
        commands = self._core.handle(source, event, now_ns)
        self._log.put(Handled(now_ns, source, event, tuple(commands)))
        while len(self._log._writer) > 5_000:
            time.sleep(0.01)
        if self._log.checkpoint_due(now_ns):
            self._log.checkpoint(self._core, now_ns)
        return commands

    def wake_after_ns(self, reject_within_ns: float = 0.0) -> float:
        return self._core.wake_after_ns(reject_within_ns)

    def wake(self, now_ns: int) -> list[Command]:
        commands = self._core.wake(now_ns)
        self._log.put(Woken(now_ns, tuple(commands)))
        return commands

    def learn(self) -> int:
        self._log.put(Trained())
        return self._core.learn()
