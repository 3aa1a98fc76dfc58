"""Takes the turns that are missing: starts each server, sends its loads, keeps what came of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil  # type: ignore[import-untyped]

from backend.load.arrivals import read_trace
from backend.load.interleaved_load import Bench, Schedule
from backend.load.outcomes import MeasuredLoad
from backend.load.workload import Workload
from backend.progress_bar import StageBar
from backend.server.embedded import EmbeddedServer
from benchmarks.compare.plan import LOST_MAX, TRACE, ComparisonPlan
from benchmarks.compare.records import ComparisonRecords, ServerTurn, TurnRecord
from benchmarks.compare.servers import RECORDING, ServerSetup, running
from benchmarks.compare.time_breakdown import TimeBreakdown, time_breakdown
from benchmarks.harness.calibration import capacity_per_s
from benchmarks.harness.cpu_steal import CpuStealWatch, least_disturbed
from benchmarks.harness.loads import equal_traffic
from benchmarks.harness.payloads import payloads
from benchmarks.harness.servers import settled_counts
from benchmarks.harness.steps import Step
from benchmarks.models.lane_repositories import write_lane_repositories
from benchmarks.models.model_repository import model_files
from benchmarks.models.profiles import profiling_steps

_START_S, _WARM_UP_S, _BETWEEN_S = 6.0, 3.0, 0.5
_WITHIN_S = 3_540.0
"""Loads that the host disturbs are taken again while all that is missing still fits into this."""
_IN_FLIGHT_PER_LANE = 6


class LoadAttempt(NamedTuple):
    """One attempt at a load."""

    measured: MeasuredLoad
    lost: float
    scheduler_cpu_share: float | None
    breakdown: TimeBreakdown | None


class ComparisonCollector:
    """Steps raise IsochroneError; an interrupt leaves nothing half-written.

    source: the models. samples: for the scheduler whose predictor is fitted once.
    """

    def __init__(self, records: ComparisonRecords, source: Path, samples: Path | None, bar: StageBar) -> None:
        self._records, self._plan, self._source, self._samples = records, records.plan, source, samples
        self._bar, self._lanes = bar, records.manifest.cores
        self._until_s = time.monotonic() + _WITHIN_S
        self._capacities = {turn.round: record.capacity_per_s for turn, record in records.recorded().items()}

    def prepare(self) -> None:
        """Links the models. Raises BenchmarkError where some are missing."""
        write_lane_repositories(self._records.repositories(), self._source, self._plan.models)

    def steps(self) -> Iterator[Step]:
        """All that is missing: profiles, the capacity of each round, turns."""
        plan, records = self._plan, self._records
        repositories = records.repositories().values()
        yield from profiling_steps(repositories, plan.models, plan.batch_sizes, plan.profile_seconds)
        turn_s = _START_S + _WARM_UP_S + len(plan.loads) * (plan.seconds + _BETWEEN_S)
        capacity_s = _START_S + plan.capacity_seconds + 1.0
        known = set(self._capacities)
        for turn in records.missing():
            if turn.round not in known:
                known.add(turn.round)
                run = partial(self._measure_capacity, turn.round)
                yield Step("measuring the machine's capacity", capacity_s, run)
            yield Step(turn.server, turn_s, partial(self._take, turn), own_stages=True)

    def _setup(self) -> ServerSetup:
        profiles = self._records.profiles()
        return ServerSetup(self._records.repositories(), equal_traffic(profiles, 1.0), profiles, self._samples)

    def _measure_capacity(self, of: tuple[int, str]) -> None:
        """Once per round: the machine may be twice as fast in one hour as in the next."""
        requests = payloads(model_files(self._source, self._plan.models))
        with running("in order", self._setup()) as server:
            found = capacity_per_s(server.grpc_url, requests, _IN_FLIGHT_PER_LANE, self._plan.capacity_seconds)
        self._capacities[of] = found

    def _take(self, turn: ServerTurn) -> None:
        plan, records, setup = self._plan, self._records, self._setup()
        workload = workload_of(turn, plan, setup, self._capacities[turn.round])
        trace = None if workload.trace is None else read_trace(Path(workload.trace))
        schedule = Schedule(workload, trace, plan.loads, plan.most_repeats, plan.seed)
        self._bar.begin(f"starting {turn.server}", _START_S)
        requests = payloads(model_files(self._source, plan.models))
        bench = Bench(schedule, requests, self._bar.begin, self._bar.advance)
        samples = records.samples_path(turn) if turn.server == RECORDING else None
        if samples is not None:
            samples.parent.mkdir(exist_ok=True)
            samples.unlink(missing_ok=True)  # of a turn that lost its server
        kept = list[LoadAttempt]()
        with running(turn.server, setup, samples) as server:
            bench.warm_up(turn.server, server.grpc_url, plan.loads[0])
            for load in plan.loads:
                patient = time.monotonic() + sum(step.seconds for step in self.steps()) < self._until_s
                take = partial(self._take_load, bench, turn, server, load)
                kept.append(least_disturbed(take, attrgetter("lost"), LOST_MAX, plan.attempts if patient else 1))
        record = TurnRecord(
            [attempt.measured for attempt in kept],
            [attempt.lost for attempt in kept],
            self._capacities[turn.round],
            [attempt.scheduler_cpu_share for attempt in kept if attempt.scheduler_cpu_share is not None],
            [attempt.breakdown for attempt in kept if attempt.breakdown is not None],
        )
        records.keep(turn.file, record)

    def _take_load(self, bench: Bench, turn: ServerTurn, server: EmbeddedServer, load: float) -> LoadAttempt:
        before = settled_counts(server) if turn.server == RECORDING else None
        scheduler = _scheduler(server)
        with CpuStealWatch() as watch:
            began_s, began_cpu_s = time.monotonic(), _cpu_s(scheduler)
            bench.measure(turn.server, server.grpc_url, load, turn.repeat)
            share = (_cpu_s(scheduler) - began_cpu_s) / (time.monotonic() - began_s)
        measured, breakdown = bench.measured.pop(), None
        if before is not None:
            lane_s = self._lanes * self._plan.seconds
            breakdown = time_breakdown(load, measured.outcomes, settled_counts(server) - before, lane_s)
        return LoadAttempt(measured, watch.found.lost, None if scheduler is None else share, breakdown)


def workload_of(turn: ServerTurn, plan: ComparisonPlan, setup: ServerSetup, capacity_per_s: float) -> Workload:
    """Load 1 of a turn; each model's requests are the same whoever serves them."""
    rate = capacity_per_s / len(plan.models)
    models = tuple(msgspec.structs.replace(t, rate_per_s=rate) for t in setup.traffic)
    return Workload(models, plan.seconds, turn.arrivals, TRACE if turn.arrivals == "trace" else None)


def _scheduler(server: EmbeddedServer) -> psutil.Process | None:
    lock = server.runtime_dir / "cpu.lock"
    try:
        return psutil.Process(int(lock.read_text())) if lock.is_file() else None
    except (ValueError, psutil.NoSuchProcess):
        return None


def _cpu_s(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)
