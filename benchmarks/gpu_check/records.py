"""Records of a check, by part: what was built, which outputs agree, and what each load found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from backend.load.outcomes import MeasuredLoad
from benchmarks.gpu_check.plan import CheckPlan
from benchmarks.gpu_check.target import Target
from benchmarks.harness.records import RecordFolder, RunManifest
from benchmarks.study.plan import TEST_SETS, TRAINING
from benchmarks.study.records import LogRun, StudyRecords

IN_ORDER, AWARE = "in order", "isochrone"
IN_PROCESS, SERVER = "in process", "tritonserver"
_SERVER_SKIPPED = "server-skipped.json"


class BuiltModel(msgspec.Struct, frozen=True):
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
    """All loads once, under one order of launches: `IN_ORDER` or `AWARE`. clocks: before and after."""

    where: str
    lanes: int
    order: str
    rates_per_s: list[float]
    clocks: list[str]
    measured: list[MeasuredLoad]


class CheckRecords(RecordFolder[CheckPlan]):
    """Records of `plan` on `target`, in `folder`. source: a repository of the models; None: the zoo's."""

    def __init__(self, plan: CheckPlan, target: Target, folder: Path, source: Path | None) -> None:
        super().__init__(plan, folder)
        self.target, self.source = target, source

    @property
    def manifest(self) -> RunManifest:
        models = {} if self.source is None else {"source": str(self.source.absolute())}
        return RunManifest(self.plan, self.target.name, facts=dict(self.target.facts), models=models)

    @property
    def models(self) -> Path:
        """A repository of the models, with their plans and profiles."""
        return self.study.models

    @property
    def model_names(self) -> Sequence[str]:
        return tuple(self.usable())

    @property
    def study(self) -> StudyRecords:
        """Logs that the study's tables are made of, over the models that some engine took."""
        folder = self.folder / "study"
        return StudyRecords(self.plan.study_of(self.usable()), folder, folder)

    def study_is_complete(self) -> bool:
        """Tells whether all of the paper's logs are there; one without any model can never be."""
        study = self.study
        names = {log.name for log in study.plan.logs}
        whole = names == {TRAINING, *TEST_SETS}
        return whole and not any(study.missing_logs(lanes) for lanes in study.plan.lanes)

    def study_runs(self) -> list[LogRun]:
        """Runs of the logs that are there."""
        study = self.study
        found = (study.run(lanes, log) for lanes in study.plan.lanes for log in study.plan.logs)
        return [run for run in found if run is not None]

    def built(self) -> dict[str, BuiltModel]:
        """Models that were tried."""
        return {m: found for m in self.plan.models if (found := self.read(f"built/{m}.json", BuiltModel))}

    def keep_built(self, model: str, built: BuiltModel) -> None:
        self.keep(f"built/{model}.json", built)

    def usable(self) -> dict[str, str]:
        """Model → the engine that took it."""
        return {model: built.engine for model, built in self.built().items() if built.engine is not None}

    def agreements(self) -> dict[str, list[Agreement]]:
        found = {m: self.read(f"checked/{m}.json", list[Agreement]) for m in self.plan.models}
        return {model: agreements for model, agreements in found.items() if agreements}

    def keep_agreements(self, model: str, agreements: list[Agreement]) -> None:
        self.keep(f"checked/{model}.json", agreements)

    def turn(self, where: str, lanes: int, order: str) -> OrderTurn | None:
        return self.read(_turn(where, lanes, order), OrderTurn)

    def turns(self, where: str) -> list[OrderTurn]:
        """Every turn that is there."""
        found = (self.turn(where, lanes, order) for lanes in self.plan.lanes for order in (IN_ORDER, AWARE))
        return [turn for turn in found if turn is not None]

    def keep_turn(self, turn: OrderTurn) -> None:
        """Makes the turn complete."""
        self.keep(_turn(turn.where, turn.lanes, turn.order), turn)

    def turn_samples(self, where: str, lanes: int, order: str) -> Path:
        return (self.folder / _turn(where, lanes, order)).with_suffix(".jsonl")

    def server_skipped(self) -> str | None:
        """Reason why nothing went through a tritonserver."""
        return self.read(_SERVER_SKIPPED, str)

    def keep_server_skipped(self, why: str) -> None:
        self.keep(_SERVER_SKIPPED, why)


def _turn(where: str, lanes: int, order: str) -> str:
    return f"turns/{where}-{lanes}-lanes-{order}.json".replace(" ", "-")
