"""Takes the turns that are missing: starts each server, sends its loads, keeps what came of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]

from backend.linux.cpu_topology import cores
from backend.load.arrivals import read_trace
from backend.load.generator import Payloads
from backend.load.interleaved_load import Bench, Schedule
from backend.load.outcomes import MeasuredLoad
from backend.load.server_metrics import Counts, parse
from backend.load.workload import ModelLoad, Workload
from backend.server.embedded import EmbeddedServer
from benchmarks.compare.plan import CLASSES, LOST_MAX, SLO_FACTORS, TRACE, ComparisonPlan
from benchmarks.compare.records import ComparisonRecords, Round, ServerTurn, TurnRecord
from benchmarks.compare.servers import RECORDING, ServerSetup, running
from benchmarks.compare.time_breakdown import METRICS_LAG_S, TimeBreakdown, spent
from benchmarks.harness.calibration import capacity_per_s
from benchmarks.harness.command import outlive_servers
from benchmarks.harness.cpu_steal import CpuStealWatch, least_disturbed
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.model_repository import link_models, write_configs
from benchmarks.harness.payloads import payload
from benchmarks.harness.profiles import p95_ms, profile_models

_START_S, _WARM_UP_S, _BETWEEN_S, _PROFILE_ENTRY_S = 6.0, 3.0, 0.5, 1.5
_WITHIN_S = 3_540.0
"""Loads that the host disturbs are taken again while all that is missing still fits into this."""
_IN_FLIGHT_PER_LANE = 6


class Taken(NamedTuple):
    """One attempt at a load."""

    measured: MeasuredLoad
    lost: float
    scheduler_cpu_share: float | None
    spent: TimeBreakdown | None


class Collector:
    """Raises IsochroneError; an interrupt leaves nothing half-written.

    on_stage is told what begins and about how many seconds it takes; on_progress the seconds into it.
    """

    def __init__(
        self,
        records: ComparisonRecords,
        source: Path,
        samples: Path | None,
        on_stage: Callable[[str, float], None],
        on_progress: Callable[[float], None],
    ) -> None:
        self._records, self._plan, self._source, self._samples = records, records.plan, source, samples
        self._on_stage, self._on_progress = on_stage, on_progress
        self._lanes = len(cores())
        self._until_s = time.monotonic() + _WITHIN_S

    def run(self) -> None:
        """All that is missing."""
        plan, records = self._plan, self._records
        for lanes, models in records.repositories().items():
            files = link_models(self._source, models, plan.models)
            write_configs(models, {"device_lanes": str(lanes)})
        if records.unprofiled():
            self._on_stage("profiling the models alone", _profiling_s(records))
            for models in records.repositories().values():
                profile_models(models, plan.profile_seconds, plan.batch_sizes)
        self._payloads: Payloads = {model: payload(file, seed=i) for i, (model, file) in enumerate(files.items())}
        self._asked = self._asks()
        self._capacities = {turn.round: recorded.capacity_per_s for turn, recorded in records.recorded().items()}
        for turn in records.missing():
            if turn.round not in self._capacities:
                outlive_servers(partial(self._measure_capacity, turn.round), self._on_stage)
            outlive_servers(partial(self._take, turn), self._on_stage)

    def _asks(self) -> ServerSetup:
        alone_ms = {model: p95_ms(file) for model, file in self._records.profiles().items()}
        models = self._plan.models
        return ServerSetup(
            self._records.repositories(),
            {model: CLASSES[i // len(SLO_FACTORS) % len(CLASSES)] for i, model in enumerate(models)},
            {model: SLO_FACTORS[i % len(SLO_FACTORS)] * alone_ms[model] for i, model in enumerate(models)},
            alone_ms,
            self._lanes,
            self._samples,
        )

    def _measure_capacity(self, of: Round) -> None:
        """Once per round: the machine may be twice as fast in one hour as in the next."""
        self._on_stage("measuring the machine's capacity", _START_S + self._plan.capacity_seconds)
        with running("in order", self._asked) as server:
            per_model = max(2, math.ceil(_IN_FLIGHT_PER_LANE * self._lanes / len(self._payloads)))
            found = capacity_per_s(
                server.grpc_url, self._payloads, per_model=per_model, seconds=self._plan.capacity_seconds
            )
        if found <= 0.0:
            raise BenchmarkError("the server answered no request while its capacity was measured")
        self._capacities[of] = found

    def _take(self, turn: ServerTurn) -> None:
        workload = workload_of(turn, self._plan, self._asked, self._capacities[turn.round])
        trace = None if workload.trace is None else read_trace(Path(workload.trace))
        schedule = Schedule(workload, trace, self._plan.loads, self._plan.most_repeats, self._plan.seed)
        self._on_stage(f"starting {turn.server}", _START_S)
        bench = Bench(schedule, self._payloads, self._on_stage, self._on_progress)
        record = self._records.samples_path(turn) if turn.server == RECORDING else None
        if record is not None:
            record.parent.mkdir(exist_ok=True)
            record.unlink(missing_ok=True)  # of a turn that lost its server
        kept = list[Taken]()
        with running(turn.server, self._asked, record) as server:
            bench.warm_up(turn.server, server.grpc_url, self._plan.loads[0])
            for load in self._plan.loads:
                patient = time.monotonic() + remaining_s(self._records) < self._until_s
                attempts = self._plan.attempts if patient else 1
                take = partial(self._take_load, bench, turn, server, load)
                kept.append(least_disturbed(take, attrgetter("lost"), LOST_MAX, attempts))
        self._records.keep(
            turn,
            TurnRecord(
                [taken.measured for taken in kept],
                [taken.lost for taken in kept],
                self._capacities[turn.round],
                [taken.scheduler_cpu_share for taken in kept if taken.scheduler_cpu_share is not None],
                [taken.spent for taken in kept if taken.spent is not None],
            ),
        )

    def _take_load(self, bench: Bench, turn: ServerTurn, server: EmbeddedServer, load: float) -> Taken:
        before = _counts(server) if turn.server == RECORDING else None
        scheduler = _scheduler(server)
        with CpuStealWatch() as watch:
            began_s, began_cpu_s = time.monotonic(), _cpu_s(scheduler)
            bench.measure(turn.server, server.grpc_url, load, turn.repeat)
            share = (_cpu_s(scheduler) - began_cpu_s) / (time.monotonic() - began_s)
        measured, costs = bench.measured.pop(), None
        if before is not None:
            costs = spent(load, measured.outcomes, _counts(server) - before, self._lanes * self._plan.seconds)
        return Taken(measured, watch.found.lost, None if scheduler is None else share, costs)


def workload_of(turn: ServerTurn, plan: ComparisonPlan, asked: ServerSetup, capacity_per_s: float) -> Workload:
    """At load 1; each model's requests are the same whoever serves them."""
    rate = capacity_per_s / len(plan.models)
    models = tuple(ModelLoad(model, rate, asked.slo_ms[model], asked.classes[model]) for model in plan.models)
    return Workload(models, plan.seconds, turn.arrivals, TRACE if turn.arrivals == "trace" else None)


def remaining_s(records: ComparisonRecords) -> float:
    """About how many seconds what is missing takes where no load is disturbed."""
    plan, missing = records.plan, records.missing()
    turn_s = _START_S + _WARM_UP_S + len(plan.loads) * (plan.seconds + _BETWEEN_S)
    capacity_s = _START_S + plan.capacity_seconds + 1.0
    profiles_s = _profiling_s(records) if records.unprofiled() else 0.0
    return profiles_s + capacity_s * len({turn.round for turn in missing}) + turn_s * len(missing)


def _profiling_s(records: ComparisonRecords) -> float:
    plan = records.plan
    return (
        len(records.repositories())
        * len(plan.models)
        * len(plan.batch_sizes)
        * max(_PROFILE_ENTRY_S, plan.profile_seconds)
    )


def _counts(server: EmbeddedServer) -> Counts:
    """Once /metrics tells of all that was answered."""
    time.sleep(METRICS_LAG_S)
    return parse(server.metrics())


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
