"""Records of the study: its logs, the runs that they are of, and figure 3's tasks."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.harness.cpu_steal import CpuSteal
from benchmarks.harness.records import RecordFolder, RunManifest
from benchmarks.models.model_repository import model_files
from benchmarks.study.plan import StudyLog, StudyPlan
from profiler.host import sha256_of

TASK_LANES = (1, 2)
"""Figure 3: sequential, concurrent."""


class LogRun(msgspec.Struct, frozen=True):
    """Facts beside a log's samples: what was asked for, what came of it, and when the host took CPU away."""

    rates_per_s: list[dict[str, float]]
    requests: int
    failed: int
    cpu_steal: CpuSteal


class Tasks(msgspec.Struct, frozen=True):
    """The copied model several times on one device. Latencies from the intended send time, in ms."""

    lanes: int
    tasks: int
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float


class StudyRecords(RecordFolder[StudyPlan]):
    """Records of `plan`, on the models in `source`, in `folder`."""

    def __init__(self, plan: StudyPlan, source: Path, folder: Path) -> None:
        super().__init__(plan, folder)
        self.source = source

    @property
    def manifest(self) -> RunManifest:
        """Raises BenchmarkError where a model is missing."""
        files = model_files(self.source, self.plan.models)
        return RunManifest(self.plan, models={model: sha256_of(file) for model, file in files.items()})

    def samples(self, lanes: int, log: StudyLog) -> Path:
        """The log itself."""
        return (self.folder / _log(lanes, log)).with_suffix(".jsonl")

    def run(self, lanes: int, log: StudyLog) -> LogRun | None:
        return self.read(_log(lanes, log), LogRun)

    def keep_log(self, lanes: int, log: StudyLog, run: LogRun, samples: bytes) -> None:
        """Writes the run last: it makes the log complete."""
        path = self.samples(lanes, log)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(samples)
        self.keep(_log(lanes, log), run)

    def missing_logs(self, lanes: int) -> list[StudyLog]:
        return [log for log in self.plan.logs if not self.has(_log(lanes, log))]

    def tasks(self) -> list[Tasks]:
        found = (self.read(_tasks(lanes, n), Tasks) for lanes in TASK_LANES for n in self.plan.tasks)
        return [tasks for tasks in found if tasks is not None]

    def keep_tasks(self, tasks: Tasks) -> None:
        self.keep(_tasks(tasks.lanes, tasks.tasks), tasks)

    def missing_tasks(self, lanes: int) -> list[int]:
        return [n for n in self.plan.tasks if not self.has(_tasks(lanes, n))]


def _log(lanes: int, log: StudyLog) -> str:
    return f"logs/{log.name.replace(' ', '-')}-{lanes}-lanes.json"


def _tasks(lanes: int, tasks: int) -> str:
    return f"tasks/{tasks}-on-{lanes}-lanes.json"
