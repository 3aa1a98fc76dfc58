"""Where the records of a check lie, and what they hold. Reads and names files, records nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from backend.load.outcomes import MeasuredLoad
from benchmarks.gpu_check.plan import CheckPlan
from benchmarks.gpu_check.target import Target
from benchmarks.harness.profiles import read_profiles
from benchmarks.harness.run_manifest import take_up
from benchmarks.study.plan import TEST_SETS, TRAINING
from benchmarks.study.records import LogRun, StudyRecords
from profiler.profile_file import ProfileFile
from profiler.store import write_json

T = TypeVar("T")
IN_ORDER, AWARE = "in order", "isochrone"
IN_PROCESS, SERVER = "in process", "tritonserver"


class Built(msgspec.Struct, frozen=True):
    """engine: which one took the model, None: none did. skipped: engines that did not, and why."""

    engine: str | None
    seconds: float
    skipped: dict[str, str]


class Agreement(msgspec.Struct, frozen=True):
    """One batch beside ONNX Runtime on the CPU. errors: per output, in relative norm; None: not to be compared."""

    batch_size: int
    errors: dict[str, float | None]

    @property
    def worst(self) -> float | None:
        """None where some output is not to be compared."""
        found = [error for error in self.errors.values() if error is not None]
        return max(found) if len(found) == len(self.errors) > 0 else None


class OrderTurn(msgspec.Struct, frozen=True):
    """All loads once, under one order of launches. target: `IN_ORDER` or `AWARE`. clocks: before and after."""

    where: str
    lanes: int
    target: str
    rates_per_s: list[float]
    clocks: list[str]
    measured: list[MeasuredLoad]


class CheckRecords:
    """Of `plan` on `target`, in `folder`. source: a repository of the models; None: the zoo's."""

    def __init__(self, plan: CheckPlan, target: Target, folder: Path, source: Path | None) -> None:
        self.plan, self.target, self.folder, self.source = plan, target, folder, source

    def begin(self) -> None:
        """Take up the folder. Raises BenchmarkError where it holds records of something else."""
        source = None if self.source is None else str(self.source.absolute())
        what = "plan, device, version or set of models"
        take_up(self.folder, (self.plan, self.target.name, dict(self.target.facts), source), what)

    @property
    def models(self) -> Path:
        """A repository of the models, with their plans and profiles."""
        return self.folder / "study" / "models"

    @property
    def study(self) -> StudyRecords:
        """Of the logs that the study's tables are made of, over the models that some engine took."""
        return StudyRecords(self.plan.study_of(self.usable()), self.models, self.folder / "study")

    def study_is_complete(self) -> bool:
        """Whether all of the paper's logs are there; one without any model can never be."""
        study = self.study
        names = {log.name for log in study.plan.logs}
        whole = names == {TRAINING, *TEST_SETS}
        return whole and not any(study.missing_logs(lanes) for lanes in study.plan.lanes)

    def study_runs(self) -> list[LogRun]:
        """Of the logs that are there."""
        study = self.study
        logs = [(lanes, log) for lanes in study.plan.lanes for log in study.plan.logs]
        return [study.run(lanes, log) for lanes, log in logs if log not in study.missing_logs(lanes)]

    def built(self) -> dict[str, Built]:
        """Of the models that were tried."""
        return {m: found for m in self.plan.models if (found := self._read(f"built/{m}.json", Built))}

    def keep_built(self, model: str, built: Built) -> None:
        self._write(f"built/{model}.json", built)

    def usable(self) -> dict[str, str]:
        """Model → the engine that took it."""
        return {model: built.engine for model, built in self.built().items() if built.engine is not None}

    def agreements(self) -> dict[str, list[Agreement]]:
        found = {m: self._read(f"checked/{m}.json", list[Agreement]) for m in self.plan.models}
        return {model: agreements for model, agreements in found.items() if agreements}

    def keep_agreements(self, model: str, agreements: list[Agreement]) -> None:
        self._write(f"checked/{model}.json", agreements)

    def profiles(self) -> dict[str, ProfileFile]:
        return read_profiles(self.models, tuple(self.usable()))

    def turn(self, where: str, lanes: int, target: str) -> OrderTurn | None:
        return self._read(_turn(where, lanes, target), OrderTurn)

    def keep_turn(self, turn: OrderTurn) -> None:
        """What makes it complete."""
        self._write(_turn(turn.where, turn.lanes, turn.target), turn)

    def turn_samples(self, where: str, lanes: int, target: str) -> Path:
        return (self.folder / _turn(where, lanes, target)).with_suffix(".jsonl")

    def server_skipped(self) -> str | None:
        """Why nothing went through a tritonserver."""
        return self._read("server-skipped.json", str)

    def keep_server_skipped(self, why: str) -> None:
        self._write("server-skipped.json", why)

    def _read(self, name: str, kind: type[T]) -> T | None:
        path = self.folder / name
        return msgspec.json.decode(path.read_bytes(), type=kind) if path.is_file() else None

    def _write(self, name: str, value: object) -> None:
        write_json(self.folder / name, value)


def _turn(where: str, lanes: int, target: str) -> str:
    return f"turns/{where}-{lanes}-lanes-{target}.json".replace(" ", "-")
