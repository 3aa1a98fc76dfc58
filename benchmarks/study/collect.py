"""Records the study's logs on a real tritonserver, a file each, so that what is there need not be run again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from backend.errors import ServerError
from backend.linux.cpu_topology import cores
from backend.load.arrivals import Arrival, Traffic, poisson
from backend.load.generator import Payloads, run_load
from backend.load.outcomes import Outcome, first_error, summarise
from backend.load.server_metrics import parse
from backend.scheduler_process.sample_log import VARIABLE
from backend.server import processes
from backend.server.embedded import EmbeddedServer
from benchmarks.harness.command import outlive_servers
from benchmarks.harness.cpu_steal import CpuStealWatch, least_disturbed
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.model_repository import link_models, short_temporary_folder, write_configs
from benchmarks.harness.payloads import payload
from benchmarks.harness.profiles import profile_models
from benchmarks.study.plan import COPIED, CPU_STEAL_MAX, Log
from benchmarks.study.records import TASK_LANES, LogRun, StudyRecords, Tasks
from profiler.profile_file import NAME, ProfileFile

_START_S, _PROFILE_ENTRY_S, _REST_S = 9.0, 1.5, 1.5
_SETTLED_S, _SETTLE_MAX_S = 0.5, 10.0
_PATIENCE_S = 120.0
_STUB_LOST = "is not healthy"


class Taken(NamedTuple):
    """One attempt at a log, and its samples as they were recorded."""

    run: LogRun
    samples: bytes


class Collector:
    """Records what is missing. Raises IsochroneError; an interrupt leaves nothing half-written.

    `on_stage` is told what begins and about how many seconds it takes; `on_progress` the seconds into it.
    """

    def __init__(
        self, records: StudyRecords, on_stage: Callable[[str, float], None], on_progress: Callable[[float], None]
    ) -> None:
        self._records, self._plan = records, records.plan
        self._on_stage, self._on_progress = on_stage, on_progress
        self._cores = len(cores())

    def run(self) -> None:
        """All of it."""
        records = self._records
        link_models(records.source, records.models, self._plan.models)
        write_configs(records.models, {})
        if missing := records.unprofiled():
            self._on_stage(f"profiling {missing} batches alone on the device", profiling_s(records))
            profile_models(records.models, self._plan.profile_seconds, self._plan.batch_sizes)
        profiles = records.profiles()
        for lanes in self._plan.lanes:
            outlive_servers(partial(self._record_logs, lanes, profiles), self._on_stage)
        for lanes in TASK_LANES:
            outlive_servers(partial(self._record_tasks, lanes, profiles), self._on_stage)

    # Logs

    def _record_logs(self, lanes: int, profiles: Mapping[str, ProfileFile]) -> None:
        if not (logs := self._records.missing_logs(lanes)):
            return
        solo_s = {model: file.profile().at(1).solo_ns / 1e9 for model, file in profiles.items()}
        files = {model: self._records.models / model / "1" / "model.onnx" for model in self._plan.models}
        payloads = {model: payload(file, seed=i) for i, (model, file) in enumerate(files.items())}
        with self._server(self._records.models, lanes) as (server, samples):
            for log in logs:
                take = partial(self._take, server, lanes, log, solo_s, payloads, samples)
                best = least_disturbed(take, lambda taken: taken.run.steal.share, CPU_STEAL_MAX, self._plan.attempts)
                self._records.keep_log(lanes, log, best.run, best.samples)

    def _take(
        self,
        server: EmbeddedServer,
        lanes: int,
        log: Log,
        solo_s: Mapping[str, float],
        payloads: Payloads,
        samples: Path,
    ) -> Taken:
        self._warm_up(server, payloads, log.traffic(0.4, solo_s, self._cores), samples)
        with CpuStealWatch() as watch:
            run = self._record(server, lanes, log, solo_s, payloads, watch)
        _settle(samples)
        return Taken(run, samples.read_bytes())

    def _record(
        self,
        server: EmbeddedServer,
        lanes: int,
        log: Log,
        solo_s: Mapping[str, float],
        payloads: Payloads,
        watch: CpuStealWatch,
    ) -> LogRun:
        rates, requests, failed = [], 0, 0
        for i, load in enumerate(log.loads):
            traffic = log.traffic(load, solo_s, self._cores)
            rates.append({t.model: round(t.rate_per_s, 2) for t in traffic})
            self._on_stage(f"{log.name}, {lanes} lanes, load {load:.1f}", log.seconds + _REST_S)
            arrivals = poisson(traffic, log.seconds, log.seed + i)
            outcomes = self._load(server, arrivals, payloads)
            summary = summarise(outcomes, log.seconds)
            if summary.failed == len(outcomes):
                raise BenchmarkError(f"every request failed; the first was told: {first_error(outcomes)}")
            requests, failed = requests + summary.requests, failed + summary.failed
        return LogRun(rates, requests, failed, watch.found)

    def _warm_up(
        self, server: EmbeddedServer, payloads: Payloads, traffic: Sequence[Traffic], samples: Path | None = None
    ) -> None:
        seconds = self._plan.warm_up_seconds
        self._on_stage("warm-up", seconds)
        self._load(server, poisson(traffic, seconds, 0), payloads)
        if samples is not None:
            _settle(samples)
            samples.unlink(missing_ok=True)

    def _load(self, server: EmbeddedServer, plan: Sequence[Arrival], payloads: Payloads) -> list[Outcome]:
        """No client gives up while a queue is long: the log has all of the planned load. Raises ServerError."""
        outcomes = run_load(server.grpc_url, plan, payloads, timeout_s=_PATIENCE_S, on_progress=self._on_progress)
        if lost := parse(server.metrics()).total("isochrone_samples_lost_total"):
            raise BenchmarkError(f"{lost:.0f} samples could not be written; is the disk full?")
        if any(_STUB_LOST in outcome.error for outcome in outcomes):
            raise ServerError("the server lost a model's process")
        return outcomes

    # Figure 3

    def _record_tasks(self, lanes: int, profiles: Mapping[str, ProfileFile]) -> None:
        if not (tasks := self._records.missing_tasks(lanes)):
            return
        file = self._records.models / COPIED / "1" / "model.onnx"
        copies = [f"{COPIED}_{i}" for i in range(1, max(tasks) + 1)]
        rate = self._plan.task_load / (profiles[COPIED].profile().at(1).solo_ns / 1e9)
        payloads = dict.fromkeys(copies, payload(file))
        with _copies(file, copies) as repository, self._server(repository, lanes) as (server, _):
            self._warm_up(server, payloads, [Traffic(copy, rate / len(copies), 1e4) for copy in copies])
            for n in tasks:
                self._on_stage(f"{n} × {COPIED}, {lanes} lanes", self._plan.task_seconds + _REST_S)
                traffic = [Traffic(copy, rate / n, 1e4) for copy in copies[:n]]
                arrivals = poisson(traffic, self._plan.task_seconds, n)
                outcomes = self._load(server, arrivals, payloads)
                s = summarise(outcomes, self._plan.task_seconds)
                self._records.keep_tasks(Tasks(lanes, n, s.requests, s.failed, s.p50_ms, s.p99_ms))

    # Servers

    @contextmanager
    def _server(self, repository: Path, lanes: int) -> Iterator[tuple[EmbeddedServer, Path]]:
        """And the file that its samples go to. In order of arrival: nothing of the scheduler shapes the logs."""
        self._on_stage(f"starting a server with {lanes} lanes", _START_S)
        write_configs(repository, {"interference_aware": "false", "device_lanes": str(lanes)})
        folder = short_temporary_folder()
        try:
            samples = folder / "samples.jsonl"
            env = {VARIABLE: str(samples), "ISOCHRONE_RUNTIME_DIR": str(folder / "run")}
            with EmbeddedServer(repository, env=env) as server:
                yield server, samples
        finally:
            processes.end(lambda: processes.pids_with("ISOCHRONE_RUNTIME_DIR", str(folder / "run")))
            shutil.rmtree(folder, ignore_errors=True)


def missing_s(records: StudyRecords) -> float:
    """About how many seconds the missing part takes."""
    plan = records.plan
    logs = [log for lanes in plan.lanes for log in records.missing_logs(lanes)]
    loads_s = sum(len(log.loads) * (log.seconds + _REST_S) for log in logs)
    tasks_s = sum(len(records.missing_tasks(lanes)) for lanes in TASK_LANES) * (plan.task_seconds + _REST_S)
    servers = sum(bool(records.missing_logs(lanes)) for lanes in plan.lanes)
    servers += sum(bool(records.missing_tasks(lanes)) for lanes in TASK_LANES)
    return profiling_s(records) + loads_s + tasks_s + servers * (_START_S + plan.warm_up_seconds)


def profiling_s(records: StudyRecords) -> float:
    """About how many seconds the missing profiles take."""
    return records.unprofiled() * max(_PROFILE_ENTRY_S, records.plan.profile_seconds)


@contextmanager
def _copies(file: Path, names: Sequence[str]) -> Iterator[Path]:
    """A repository with one model under several names, each with its profile."""
    folder = short_temporary_folder()
    try:
        for name in names:
            version = folder / name / "1"
            version.mkdir(parents=True)
            (version / file.name).symlink_to(file.resolve())
            (version / NAME).symlink_to(file.with_name(NAME).absolute())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settle(samples: Path) -> None:
    """Until the writer has caught up."""
    size, end_s = -1, time.monotonic() + _SETTLE_MAX_S
    while time.monotonic() < end_s:
        now = samples.stat().st_size if samples.exists() else 0
        if now == size:
            return
        size = now
        time.sleep(_SETTLED_S)
