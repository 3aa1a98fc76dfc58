"""Records the study's logs on a real tritonserver, a file each, so that what is there need not be run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from backend.errors import ServerError
from backend.linux.cpu_topology import cores
from backend.load.arrivals import Arrival, Traffic, poisson
from backend.load.generator import Payloads, run_load
from backend.load.outcomes import Outcome, summarise
from backend.load.server_metrics import parse
from backend.progress_bar import StageBar
from backend.scheduler_process.sample_log import VARIABLE
from backend.server.embedded import EmbeddedServer
from benchmarks.harness.cpu_steal import least_disturbed
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.loads import solo_latencies_s
from benchmarks.harness.payloads import payload, payloads
from benchmarks.harness.servers import temporary_server
from benchmarks.harness.steps import Step
from benchmarks.models.model_repository import link_files, link_models, model_files, write_configs
from benchmarks.models.profiles import profiling_steps
from benchmarks.study.log_run import run_log
from benchmarks.study.plan import COPIED, CPU_STEAL_MAX, StudyLog
from benchmarks.study.records import TASK_LANES, LogRun, StudyRecords, Tasks
from profiler.profile_file import NAME

_START_S, _REST_S = 9.0, 1.5
_SETTLED_S, _SETTLE_MAX_S = 0.5, 10.0
_PATIENCE_S = 120.0
_STUB_LOST = "is not healthy"


class LogAttempt(NamedTuple):
    """One attempt at a log, and its samples as they were recorded."""

    run: LogRun
    samples: bytes


class StudyCollector:
    """Steps raise IsochroneError; an interrupt leaves nothing half-written."""

    def __init__(self, records: StudyRecords, bar: StageBar) -> None:
        self._records, self._plan, self._bar = records, records.plan, bar
        self._cores = len(cores())

    def prepare(self) -> None:
        """Links the models. Raises BenchmarkError where some are missing."""
        link_models(self._records.source, self._records.models, self._plan.models)
        write_configs(self._records.models, {})

    def steps(self) -> Iterator[Step]:
        """All that is missing: profiles, and for each number of lanes a server's logs and tasks."""
        plan, records = self._plan, self._records
        yield from profiling_steps([records.models], plan.models, plan.batch_sizes, plan.profile_seconds)
        start_s = _START_S + plan.warm_up_seconds
        for lanes in plan.lanes:
            if logs := records.missing_logs(lanes):
                seconds = start_s + sum(len(log.loads) * (log.seconds + _REST_S) for log in logs)
                yield Step(f"logs, {lanes} lanes", seconds, partial(self._record_logs, lanes), own_stages=True)
        for lanes in TASK_LANES:
            if tasks := records.missing_tasks(lanes):
                seconds = start_s + len(tasks) * (plan.task_seconds + _REST_S)
                yield Step(f"tasks, {lanes} lanes", seconds, partial(self._record_tasks, lanes), own_stages=True)

    # Logs

    def _record_logs(self, lanes: int) -> None:
        records, plan = self._records, self._plan
        solo_s = solo_latencies_s(records.profiles())
        files = model_files(records.models, plan.models)
        requests = payloads(files)
        with self._server(partial(_link, files), lanes) as (server, samples):
            for log in records.missing_logs(lanes):
                take = partial(self._take, server, lanes, log, solo_s, requests, samples)
                best = least_disturbed(take, lambda attempt: attempt.run.cpu_steal.share, CPU_STEAL_MAX, plan.attempts)
                records.keep_log(lanes, log, best.run, best.samples)

    def _take(
        self,
        server: EmbeddedServer,
        lanes: int,
        log: StudyLog,
        solo_s: Mapping[str, float],
        requests: Payloads,
        samples: Path,
    ) -> LogAttempt:
        def send(what: str, arrivals: Sequence[Arrival], seconds: float) -> list[Outcome]:
            self._bar.begin(f"{log.name}, {lanes} lanes, {what}", seconds + _REST_S)
            return self._load(server, arrivals, requests)

        self._warm_up(server, requests, log.traffic(0.4, solo_s, self._cores))
        _settle(samples)
        samples.unlink(missing_ok=True)
        run = run_log(log, solo_s, self._cores, send)
        _settle(samples)
        return LogAttempt(run, samples.read_bytes())

    def _warm_up(self, server: EmbeddedServer, requests: Payloads, traffic: Sequence[Traffic]) -> None:
        self._bar.begin("warm-up", self._plan.warm_up_seconds)
        self._load(server, poisson(traffic, self._plan.warm_up_seconds, 0), requests)

    def _load(self, server: EmbeddedServer, plan: Sequence[Arrival], requests: Payloads) -> list[Outcome]:
        """No client gives up while a queue is long: the log has all of the planned load. Raises ServerError."""
        outcomes = run_load(server.grpc_url, plan, requests, timeout_s=_PATIENCE_S, on_progress=self._bar.advance)
        if lost := parse(server.metrics()).total("isochrone_samples_lost_total"):
            raise BenchmarkError(f"{lost:.0f} samples could not be written; is the disk full?")
        if any(_STUB_LOST in outcome.error for outcome in outcomes):
            raise ServerError("the server lost a model's process")
        return outcomes

    # Figure 3

    def _record_tasks(self, lanes: int) -> None:
        records, plan = self._records, self._plan
        tasks = records.missing_tasks(lanes)
        file = model_files(records.models, [COPIED])[COPIED]
        copies = [f"{COPIED}_{i}" for i in range(1, max(tasks) + 1)]
        rate = plan.task_load / solo_latencies_s(records.profiles())[COPIED]
        requests = dict.fromkeys(copies, payload(file))
        with self._server(partial(_link, dict.fromkeys(copies, file)), lanes) as (server, _):
            self._warm_up(server, requests, [Traffic(copy, rate / len(copies), 1e4) for copy in copies])
            for n in tasks:
                self._bar.begin(f"{n} × {COPIED}, {lanes} lanes", plan.task_seconds + _REST_S)
                traffic = [Traffic(copy, rate / n, 1e4) for copy in copies[:n]]
                outcomes = self._load(server, poisson(traffic, plan.task_seconds, n), requests)
                s = summarise(outcomes, plan.task_seconds)
                records.keep_tasks(Tasks(lanes, n, s.requests, s.failed, s.p50_ms, s.p99_ms))

    # Servers

    @contextmanager
    def _server(self, link: Callable[[Path], None], lanes: int) -> Iterator[tuple[EmbeddedServer, Path]]:
        """Serves, with the file of its samples. In order of arrival: nothing of the scheduler shapes the logs."""

        def write(repository: Path) -> None:
            link(repository)
            write_configs(repository, {"interference_aware": "false", "device_lanes": str(lanes)})

        self._bar.begin(f"starting a server with {lanes} lanes", _START_S)
        with TemporaryDirectory() as folder:
            samples = Path(folder, "samples.jsonl")
            with temporary_server(write, env={VARIABLE: str(samples)}) as server:
                yield server, samples


def _link(files: Mapping[str, Path], repository: Path) -> None:
    """Model files under these names, each with its profile."""
    for name, file in files.items():
        link_files(repository / name / "1", (file, file.with_name(NAME)))


def _settle(samples: Path) -> None:
    """Waits until the writer has caught up."""
    size, end_s = -1, time.monotonic() + _SETTLE_MAX_S
    while time.monotonic() < end_s:
        now = samples.stat().st_size if samples.exists() else 0
        if now == size:
            return
        size = now
        time.sleep(_SETTLED_S)
