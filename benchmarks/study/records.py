"""Where the study's records lie, and what of the plan is still missing. Reads and names files, records nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from backend.linux.cpu_topology import cores
from benchmarks.harness.cpu_steal import CpuSteal
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.profiles import read_profiles, unprofiled
from benchmarks.harness.run_manifest import take_up
from benchmarks.study.plan import Log, StudyPlan
from profiler.host import cpu_name, sha256_of
from profiler.profile_file import ProfileFile

TASK_LANES = (1, 2)
"""Figure 3: sequential, concurrent."""


class LogRun(msgspec.Struct, frozen=True):
    """Beside a log's samples: what was asked for, what came of it, and when the host took CPU away."""

    rates_per_s: list[dict[str, float]]
    requests: int
    failed: int
    steal: CpuSteal


class Tasks(msgspec.Struct, frozen=True):
    """The copied model several times on one device. Latencies from the intended send time, in ms."""

    lanes: int
    tasks: int
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float


class _Stamp(msgspec.Struct, frozen=True):
    """What records are good for: the same plan, machine and models."""

    plan: StudyPlan
    cpu: str
    cores: int
    models: dict[str, str]


class StudyRecords:
    """Of `plan`, on the models in `source`, in `folder`."""

    def __init__(self, plan: StudyPlan, source: Path, folder: Path) -> None:
        self.plan, self.source, self._folder = plan, source, folder

    def begin(self) -> None:
        """Take up the folder. Raises BenchmarkError where it holds the records of something else."""
        stamp = _Stamp(self.plan, cpu_name(), len(cores()), self._hashes())
        take_up(self._folder, stamp, "plan, machine or set of models")

    @property
    def models(self) -> Path:
        """A repository of links to the models, with their profiles."""
        return self._folder / "models"

    def unprofiled(self) -> int:
        """Batch sizes that no profile has yet, over all models."""
        return unprofiled(self.models, self.plan.models, self.plan.batch_sizes)

    def profiles(self) -> dict[str, ProfileFile]:
        return read_profiles(self.models, self.plan.models)

    def samples(self, lanes: int, log: Log) -> Path:
        """The log itself."""
        return self._folder / "logs" / f"{log.name.replace(' ', '-')}-{lanes}-lanes.jsonl"

    def run(self, lanes: int, log: Log) -> LogRun:
        return msgspec.json.decode(self._run_path(lanes, log).read_bytes(), type=LogRun)

    def keep_log(self, lanes: int, log: Log, run: LogRun, samples: bytes) -> None:
        """What was asked for comes last: it makes the log complete."""
        path = self.samples(lanes, log)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(samples)
        self._run_path(lanes, log).write_bytes(msgspec.json.encode(run))

    def missing_logs(self, lanes: int) -> list[Log]:
        return [log for log in self.plan.logs if not self._run_path(lanes, log).is_file()]

    def tasks(self) -> list[Tasks]:
        return [
            msgspec.json.decode(self._tasks_path(lanes, n).read_bytes(), type=Tasks)
            for lanes in TASK_LANES
            for n in self.plan.tasks
        ]

    def keep_tasks(self, tasks: Tasks) -> None:
        path = self._tasks_path(tasks.lanes, tasks.tasks)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(msgspec.json.encode(tasks))

    def missing_tasks(self, lanes: int) -> list[int]:
        return [n for n in self.plan.tasks if not self._tasks_path(lanes, n).is_file()]

    def _run_path(self, lanes: int, log: Log) -> Path:
        return self.samples(lanes, log).with_suffix(".json")

    def _tasks_path(self, lanes: int, tasks: int) -> Path:
        return self._folder / "tasks" / f"{tasks}-on-{lanes}-lanes.json"

    def _hashes(self) -> dict[str, str]:
        files = {model: self.source / model / "1" / "model.onnx" for model in self.plan.models}
        missing = [model for model, file in files.items() if not file.is_file()]
        if missing:
            raise BenchmarkError(f"no model file for {', '.join(missing)} in '{self.source}'; run `make models`")
        return {model: sha256_of(file) for model, file in files.items()}
