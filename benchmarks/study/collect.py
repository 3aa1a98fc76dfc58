"""Records the study's logs on a real tritonserver, a file each, so that what is there need not be run again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from backend.lanes import cores
from backend.scheduler.sample_log import VARIABLE
from backend.server import processes
from backend.server.embedded import EmbeddedServer
from backend.simulation.arrivals import Traffic, poisson
from benchmarks.errors import BenchmarkError
from benchmarks.load import Payloads, first_error, payload, run_load
from benchmarks.outcomes import summarise
from benchmarks.profiles import profile_models
from benchmarks.prometheus import parse
from benchmarks.repository import link_models, short_temporary_folder, write_configs
from benchmarks.steal import Steal, StealWatch
from benchmarks.study.plan import COPIED, Log, Plan
from profiler.host import cpu_name, sha256_of
from profiler.profile_file import NAME, ProfileFile, read_profile

_START_S, _PROFILE_ENTRY_S, _REST_S = 9.0, 1.5, 1.5
_WARM_UP_S, _SETTLED_S, _SETTLE_MAX_S = 2.0, 0.6, 10.0
_STEAL_MAX = 0.03
"""Share of the CPU that the host may take during a log."""


class Run(msgspec.Struct, frozen=True):
    """Beside a log's samples: what was asked for, what came of it, and when the host took CPU away."""

    rates_per_s: list[dict[str, float]]
    requests: int
    failed: int
    steal: Steal


class Tasks(msgspec.Struct, frozen=True):
    """`COPIED` several times on one device. Latencies from the intended send time, in ms."""

    lanes: int
    tasks: int
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float


class Recorded(msgspec.Struct, frozen=True):
    """Where everything is. logs: (lanes, name of the log) → file of samples."""

    profiles: dict[str, ProfileFile]
    logs: dict[tuple[int, str], Path]
    runs: dict[tuple[int, str], Run]
    tasks: list[Tasks]


class _Stamp(msgspec.Struct, frozen=True):
    """What records are good for: the same plan, machine and models."""

    plan: Plan
    cpu: str
    cores: int
    models: dict[str, str]


class Collector:
    """Runs what is missing in `folder`. Raises IsochroneError; an interrupt leaves nothing half-written."""

    def __init__(self, plan: Plan, source: Path, folder: Path) -> None:
        self._plan, self._source, self._folder = plan, source, folder
        self._cores = len(cores())

    @property
    def seconds(self) -> float:
        """About how long the missing part takes."""
        logs = [log for lanes in self._plan.lanes for log in self._missing_logs(lanes)]
        loads = sum(len(log.loads) * (log.seconds + _REST_S) for log in logs)
        servers = sum(bool(self._missing_logs(lanes)) for lanes in self._plan.lanes)
        tasks = sum(len(self._missing_tasks(lanes)) for lanes in (1, 2)) * (self._plan.task_seconds + _REST_S)
        servers += sum(bool(self._missing_tasks(lanes)) for lanes in (1, 2))
        return self._profiling_s() + loads + tasks + servers * (_START_S + _WARM_UP_S)

    def begin(self) -> None:
        """Take up the folder. Raises BenchmarkError where it holds the records of something else."""
        stamp = _Stamp(self._plan, cpu_name(), self._cores, self._hashes())
        path = self._folder / "plan.json"
        if path.is_file():
            try:
                same = msgspec.json.decode(path.read_bytes(), type=_Stamp) == stamp
            except msgspec.MsgspecError:
                same = False
            if not same:
                raise BenchmarkError(
                    f"'{self._folder}' holds records of another plan, machine or set of models; --again removes them"
                )
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(stamp))

    def run(self, on_stage: Callable[[str, float], None], on_progress: Callable[[float], None]) -> Recorded:
        """All of it.

        `on_stage` is told what begins and about how many seconds it takes; `on_progress` the seconds into it.
        """
        self._on_stage, self._on_progress = on_stage, on_progress
        self._profile()
        profiles = self._profiles()
        for lanes in self._plan.lanes:
            if missing := self._missing_logs(lanes):
                self._record_logs(lanes, missing, profiles)
        for lanes in (1, 2):
            if missing_tasks := self._missing_tasks(lanes):
                self._record_tasks(lanes, missing_tasks, profiles)
        return Recorded(
            profiles,
            {(lanes, log.name): self._log_path(lanes, log) for lanes in self._plan.lanes for log in self._plan.logs},
            {
                (lanes, log.name): msgspec.json.decode(self._run_path(lanes, log).read_bytes(), type=Run)
                for lanes in self._plan.lanes
                for log in self._plan.logs
            },
            [
                msgspec.json.decode(self._tasks_path(lanes, n).read_bytes(), type=Tasks)
                for lanes in (1, 2)
                for n in self._plan.tasks
            ],
        )

    # Profiles

    @property
    def _models(self) -> Path:
        return self._folder / "models"

    def _profile(self) -> None:
        link_models(self._source, self._models, self._plan.models)
        write_configs(self._models, {})
        if missing := self._unprofiled():
            self._on_stage(f"profiling {missing} batches alone on the device", self._profiling_s())
            profile_models(self._models, self._plan.profile_seconds, self._plan.batch_sizes)

    def _profiling_s(self) -> float:
        return self._unprofiled() * max(_PROFILE_ENTRY_S, self._plan.profile_seconds)

    def _unprofiled(self) -> int:
        wanted = set(self._plan.batch_sizes)
        found = (read_profile(self._models / model / "1" / NAME) for model in self._plan.models)
        return sum(len(wanted - {e.batch_size for e in file.entries} if file else wanted) for file in found)

    def _profiles(self) -> dict[str, ProfileFile]:
        found = {model: read_profile(self._models / model / "1" / NAME) for model in self._plan.models}
        return {model: file for model, file in found.items() if file is not None}

    def _hashes(self) -> dict[str, str]:
        files = {model: self._source / model / "1" / "model.onnx" for model in self._plan.models}
        missing = [model for model, file in files.items() if not file.is_file()]
        if missing:
            raise BenchmarkError(f"no model file for {', '.join(missing)} in '{self._source}'; run `make models`")
        return {model: sha256_of(file) for model, file in files.items()}

    # Logs

    def _log_path(self, lanes: int, log: Log) -> Path:
        return self._folder / "logs" / f"{log.name.replace(' ', '-')}-{lanes}-lanes.jsonl"

    def _run_path(self, lanes: int, log: Log) -> Path:
        return self._log_path(lanes, log).with_suffix(".json")

    def _missing_logs(self, lanes: int) -> list[Log]:
        return [log for log in self._plan.logs if not self._run_path(lanes, log).is_file()]

    def _record_logs(self, lanes: int, logs: Sequence[Log], profiles: Mapping[str, ProfileFile]) -> None:
        solo_s = {model: file.profile().at(1).solo_ns / 1e9 for model, file in profiles.items()}
        files = {model: self._models / model / "1" / "model.onnx" for model in self._plan.models}
        payloads = {model: payload(file, seed=i) for i, (model, file) in enumerate(files.items())}
        with self._server(self._models, lanes) as (server, samples):
            for log in logs:
                best = self._least_disturbed(server, lanes, log, solo_s, payloads, samples)
                self._run_path(lanes, log).write_bytes(msgspec.json.encode(best))

    def _least_disturbed(
        self,
        server: EmbeddedServer,
        lanes: int,
        log: Log,
        solo_s: Mapping[str, float],
        payloads: Payloads,
        samples: Path,
    ) -> Run:
        """Again where the host took much of the CPU; of several, the one with the least of that."""
        best: Run | None = None
        for _ in range(self._plan.attempts):
            self._warm_up(server, payloads, log.traffic(0.4, solo_s, self._cores), samples)
            with StealWatch() as watch:
                run = self._record(server, lanes, log, solo_s, payloads, watch)
            _settle(samples)
            self._check(server)
            if best is None or run.steal.share < best.steal.share:
                best = run
                self._log_path(lanes, log).parent.mkdir(exist_ok=True)
                shutil.move(samples, self._log_path(lanes, log))  # the writer opens the file anew for each sample
            if run.steal.share <= _STEAL_MAX:
                break
        assert best is not None
        return best

    def _record(
        self,
        server: EmbeddedServer,
        lanes: int,
        log: Log,
        solo_s: Mapping[str, float],
        payloads: Payloads,
        watch: StealWatch,
    ) -> Run:
        rates, requests, failed = [], 0, 0
        for i, load in enumerate(log.loads):
            traffic = log.traffic(load, solo_s, self._cores)
            rates.append({t.model: round(t.rate_per_s, 2) for t in traffic})
            self._on_stage(f"{log.name}, {lanes} lanes, load {load:.1f}", log.seconds + _REST_S)
            arrivals = poisson(traffic, log.seconds, log.seed + i)
            outcomes = run_load(server.grpc_url, arrivals, payloads, on_progress=self._on_progress)
            summary = summarise(outcomes, log.seconds)
            if summary.failed == len(outcomes):
                raise BenchmarkError(f"every request failed; the first was told: {first_error(outcomes)}")
            requests, failed = requests + summary.requests, failed + summary.failed
        return Run(rates, requests, failed, watch.found)

    def _warm_up(
        self, server: EmbeddedServer, payloads: Payloads, traffic: Sequence[Traffic], samples: Path | None = None
    ) -> None:
        self._on_stage("warm-up", _WARM_UP_S)
        run_load(server.grpc_url, poisson(traffic, _WARM_UP_S, 0), payloads, on_progress=self._on_progress)
        if samples is not None:
            _settle(samples)
            samples.unlink(missing_ok=True)

    def _check(self, server: EmbeddedServer) -> None:
        if lost := parse(server.metrics()).total("isochrone_samples_lost_total"):
            raise BenchmarkError(f"{lost:.0f} samples could not be written to '{self._folder}'")

    # Figure 3

    def _tasks_path(self, lanes: int, tasks: int) -> Path:
        return self._folder / "tasks" / f"{tasks}-on-{lanes}-lanes.json"

    def _missing_tasks(self, lanes: int) -> list[int]:
        return [n for n in self._plan.tasks if not self._tasks_path(lanes, n).is_file()]

    def _record_tasks(self, lanes: int, tasks: Sequence[int], profiles: Mapping[str, ProfileFile]) -> None:
        file = self._models / COPIED / "1" / "model.onnx"
        copies = [f"{COPIED}_{i}" for i in range(1, max(tasks) + 1)]
        rate = self._plan.task_load / (profiles[COPIED].profile().at(1).solo_ns / 1e9)
        payloads = dict.fromkeys(copies, payload(file))
        with _copies(file, copies) as repository, self._server(repository, lanes) as (server, _):
            self._warm_up(server, payloads, [Traffic(copy, rate / len(copies), 1e4) for copy in copies])
            for n in tasks:
                self._on_stage(f"{n} × {COPIED}, {lanes} lanes", self._plan.task_seconds + _REST_S)
                traffic = [Traffic(copy, rate / n, 1e4) for copy in copies[:n]]
                arrivals = poisson(traffic, self._plan.task_seconds, n)
                outcomes = run_load(server.grpc_url, arrivals, payloads, on_progress=self._on_progress)
                s = summarise(outcomes, self._plan.task_seconds)
                found = Tasks(lanes, n, s.requests, s.failed, s.p50_ms, s.p99_ms)
                self._tasks_path(lanes, n).parent.mkdir(exist_ok=True)
                self._tasks_path(lanes, n).write_bytes(msgspec.json.encode(found))

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
