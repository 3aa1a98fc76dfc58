"""Models that share the device under Poisson load, in this process: the study's logs, and our order beside stock's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from backend.device.clocks import throttled_of
from backend.engines.loading import load_engine
from backend.engines.protocol import Engine
from backend.load.arrivals import Arrival, poisson
from backend.load.outcomes import Outcome
from backend.progress_bar import StageBar
from backend.scheduler_process.sample_log import SampleLog
from backend.simulation.simulator import SimulatedModel
from benchmarks.gpu_check.in_process import InProcess, ServedEngine
from benchmarks.gpu_check.order_turns import take_turn
from benchmarks.gpu_check.records import AWARE, IN_ORDER, IN_PROCESS, CheckRecords
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.loads import expect_answers, solo_latencies_s
from benchmarks.harness.steps import Step
from benchmarks.models.model_repository import MAX_BATCH_SIZE
from benchmarks.study.log_run import run_log
from benchmarks.study.plan import StudyLog
from zoo.inputs import random_inputs

_OPEN_S, _AROUND_S = 10.0, 0.5


class ColocatedRuns(ExitStack):
    """Opens the engines when the first step needs them, with as many lanes as any step has. A context manager."""

    def __init__(self, records: CheckRecords, bar: StageBar) -> None:
        super().__init__()
        self._records, self._plan, self._bar = records, records.plan, bar
        self._engines: dict[str, Engine] = {}

    def steps(self) -> Iterator[Step]:
        """One per log and per turn that is missing."""
        plan, records = self._plan, self._records
        for lanes in plan.study_lanes:
            for log in records.study.missing_logs(lanes):
                yield self._step(f"{log.name}, lanes: {lanes}", len(log.loads), partial(self._record, lanes, log))
        for i, lanes in enumerate(plan.lanes):
            for order in (IN_ORDER, AWARE) if i % 2 == 0 else (AWARE, IN_ORDER):
                if records.turn(IN_PROCESS, lanes, order) is None:
                    yield self._step(f"{order}, lanes: {lanes}", len(plan.loads), partial(self._take, lanes, order))

    def _step(self, name: str, loads: int, run: Callable[[], None]) -> Step:
        opening_s = 0.0 if self._engines else _OPEN_S * len(self._records.usable())
        return Step(name, opening_s + self._plan.warm_up_seconds + loads * (self._plan.seconds + _AROUND_S), run)

    def _record(self, lanes: int, log: StudyLog) -> None:
        """One of the study's logs, in order of arrival, so that nothing of the scheduler shapes it."""
        plan, records, recording = self._plan, self._records, self._records.folder / "recording.jsonl"
        solo_s = solo_latencies_s(records.profiles())
        with self._device(lanes, aware=False) as device, _recording(recording, records) as samples:

            def send(_what: str, arrivals: Sequence[Arrival], _seconds: float) -> list[Outcome]:
                return device.run(arrivals, samples, self._bar.advance)

            warm_up = poisson(log.traffic(log.loads[0], solo_s, 1), plan.warm_up_seconds, 10_000)
            expect_answers(device.run(warm_up, None, self._bar.advance))
            run = run_log(log, solo_s, 1, send, plan.study_requests)
        records.study.keep_log(lanes, log, run, recording.read_bytes())

    def _take(self, lanes: int, order: str) -> None:
        records = self._records
        path = records.turn_samples(IN_PROCESS, lanes, order)
        with self._device(lanes, aware=order == AWARE) as device, _recording(path, records) as samples:

            def send(arrivals: Sequence[Arrival], recorded: bool) -> list[Outcome]:
                return device.run(arrivals, samples if recorded else None, self._bar.advance)

            turn = take_turn(records, IN_PROCESS, lanes, order, send)
        records.keep_turn(turn)

    @contextmanager
    def _device(self, lanes: int, *, aware: bool) -> Iterator[InProcess]:
        self._open()
        records = self._records
        served = [
            ServedEngine(
                SimulatedModel(model, file.profile(), MAX_BATCH_SIZE, aware, rejects=aware),
                self._engines[model],
                dict(random_inputs(records.models / model / "1" / "model.onnx", 1, self._plan.seed)),
            )
            for model, file in records.profiles().items()
        ]
        device = InProcess(served, lanes, records.target.device, records.target.pinned_to())
        try:
            yield device
        finally:
            device.close()

    def _open(self) -> None:
        """Opens all engines, once."""
        plan, records = self._plan, self._records
        lanes = max(*plan.lanes, *plan.study_lanes)
        for model, kind in records.usable().items():
            if model not in self._engines:
                config = records.target.config(records.models, model, kind)
                engine = load_engine(config.model_file, config.options(lanes))
                self.callback(engine.close)
                self._engines[model] = engine


@contextmanager
def _recording(path: Path, records: CheckRecords) -> Iterator[SampleLog]:
    """Records to a new file, in which all samples are afterwards. Raises BenchmarkError where some are not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    log = SampleLog(path, throttled=throttled_of(records.target.device))
    try:
        yield log
    finally:
        log.close()
    if lost := sum(log.take_lost(source) for source in range(1, len(records.usable()) + 1)):
        raise BenchmarkError(f"{lost} samples could not be written to '{path}'; is the disk full?")
