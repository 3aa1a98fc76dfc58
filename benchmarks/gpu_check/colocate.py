"""Models beside each other under Poisson load, in this process: the study's logs, and our order beside stock's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType

from backend.device.clocks import throttled_of
from backend.engines.loading import load_engine
from backend.engines.protocol import Engine
from backend.load.arrivals import Traffic, poisson
from backend.load.outcomes import Measured, Outcome, first_error
from backend.scheduler_process.sample_log import SampleLog
from backend.simulation.simulator import SimulatedModel
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_check.budget import Step
from benchmarks.gpu_check.in_process import InProcess, Served
from benchmarks.gpu_check.loads import seconds_of, traffic
from benchmarks.gpu_check.records import AWARE, IN_ORDER, IN_PROCESS, Records, Turn
from benchmarks.repository import MAX_BATCH_SIZE
from benchmarks.steal import StealWatch
from benchmarks.study.plan import Log
from benchmarks.study.records import Run
from zoo.inputs import random_inputs

_OPEN_S, _AROUND_S = 10.0, 0.5


class Colocation:
    """Opens the engines when the first step needs them, with as many lanes as any step has. A context manager."""

    def __init__(self, records: Records, on_progress: Callable[[float], None]) -> None:
        self._records, self._plan, self._on_progress = records, records.plan, on_progress
        self._opened = ExitStack()
        self._engines: dict[str, Engine] = {}

    def __enter__(self) -> Colocation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def steps(self) -> Iterator[Step]:
        """One per log and per turn that is missing."""
        plan, records = self._plan, self._records
        for lanes in plan.study_lanes:
            for log in records.study.missing_logs(lanes):
                seconds = len(log.loads) * (plan.seconds + _AROUND_S) + plan.warm_up_seconds
                yield self._step(f"{log.name}, lanes: {lanes}", seconds, partial(self._record, lanes, log))
        for i, lanes in enumerate(plan.lanes):
            for target in (IN_ORDER, AWARE) if i % 2 == 0 else (AWARE, IN_ORDER):
                if records.turn(IN_PROCESS, lanes, target) is None:
                    seconds = len(plan.loads) * (plan.seconds + _AROUND_S) + plan.warm_up_seconds
                    yield self._step(f"{target}, lanes: {lanes}", seconds, partial(self._take, lanes, target))

    def _step(self, name: str, seconds: float, run: Callable[[], None]) -> Step:
        opening_s = 0.0 if self._engines else _OPEN_S * len(self._records.usable())
        return Step(name, seconds + opening_s, run)

    # The study's logs: in order of arrival, so that nothing of the scheduler shapes them

    def _record(self, lanes: int, log: Log) -> None:
        plan, study = self._plan, self._records.study
        solo_s = {model: file.profile().at(1).solo_ns / 1e9 for model, file in self._records.profiles().items()}
        rates, requests, failed, recording = [], 0, 0, self._records.folder / "recording.jsonl"
        device = self._device(lanes, aware=False)
        try:
            self._warm_up(device, log.traffic(log.loads[0], solo_s, 1))
            with StealWatch() as watch, _recording(recording, self._records) as samples:
                for i, load in enumerate(log.loads):
                    asked = log.traffic(load, solo_s, 1)
                    rates.append({t.model: round(t.rate_per_s, 2) for t in asked})
                    seconds = seconds_of(sum(t.rate_per_s for t in asked), log.seconds, plan.study_requests)
                    outcomes = self._load(device, asked, seconds, log.seed + i, samples)
                    requests += len(outcomes)
                    failed += sum(o.status == "failed" for o in outcomes)
        finally:
            device.close()
        study.keep_log(lanes, log, Run(rates, requests, failed, watch.found), recording.read_bytes())

    # The comparison

    def _take(self, lanes: int, target: str) -> None:
        plan, records = self._plan, self._records
        profiles, clocks = records.profiles(), [records.target.clocks()]
        rates, measured = [], []
        device = self._device(lanes, aware=target == AWARE)
        try:
            self._warm_up(device, traffic(profiles, plan.loads[0]))
            with _recording(records.turn_samples(IN_PROCESS, lanes, target), records) as samples:
                for i, load in enumerate(plan.loads):
                    asked = traffic(profiles, load)
                    rates.append(sum(t.rate_per_s for t in asked))
                    seconds = seconds_of(rates[-1], plan.seconds, plan.requests)
                    outcomes = self._load(device, asked, seconds, plan.seed + i, samples)
                    measured.append(Measured(f"{lanes} lanes, {target}", load, 0, seconds, outcomes))
        finally:
            device.close()
        clocks.append(records.target.clocks())
        records.keep_turn(Turn(IN_PROCESS, lanes, target, rates, clocks, measured))

    # Both

    def _device(self, lanes: int, *, aware: bool) -> InProcess:
        self._open()
        records = self._records
        served = [
            Served(
                SimulatedModel(model, file.profile(), MAX_BATCH_SIZE, aware, rejects=aware),
                self._engines[model],
                dict(random_inputs(records.models / model / "1" / "model.onnx", 1, self._plan.seed)),
            )
            for model, file in records.profiles().items()
        ]
        return InProcess(served, lanes, records.target.device, records.target.pinned_to())

    def _open(self) -> None:
        """All of them, once."""
        plan, records = self._plan, self._records
        lanes = max(*plan.lanes, *plan.study_lanes)
        for model, kind in records.usable().items():
            if model not in self._engines:
                config = records.target.config(records.models, model, kind)
                engine = load_engine(config.model_file, config.options(lanes))
                self._opened.callback(engine.close)
                self._engines[model] = engine

    def _warm_up(self, device: InProcess, asked: Sequence[Traffic]) -> None:
        self._load(device, asked, self._plan.warm_up_seconds, 10_000, None)

    def _load(
        self, device: InProcess, asked: Sequence[Traffic], seconds: float, seed: int, samples: SampleLog | None
    ) -> list[Outcome]:
        outcomes = device.run(poisson(asked, seconds, seed), samples, self._on_progress)
        if outcomes and all(o.status == "failed" for o in outcomes):
            raise BenchmarkError(f"every request failed; the first was told: {first_error(outcomes)}")
        return outcomes


@contextmanager
def _recording(path: Path, records: Records) -> Iterator[SampleLog]:
    """To a new file, in which all samples are afterwards. Raises BenchmarkError where some are not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    log = SampleLog(path, throttled=throttled_of(records.target.device))
    try:
        yield log
    finally:
        log.close()
    if lost := sum(log.take_lost(source) for source in range(1, len(records.usable()) + 1)):
        raise BenchmarkError(f"{lost} samples could not be written to '{path}'; is the disk full?")
