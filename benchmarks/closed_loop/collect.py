"""Takes the turns that are missing: starts each server, and sends the high class's requests next to each loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tritonclient import grpc as triton

from backend.load.arrivals import Arrival, Traffic
from backend.load.generator import Payloads, run_load
from backend.load.outcomes import lateness_ms
from backend.progress_bar import StageBar
from benchmarks.closed_loop.records import ClosedLoopRecords, LoopRecord, LoopTurn, Phase
from benchmarks.compare.servers import ServerSetup, running
from benchmarks.harness.calibration import RequestLoop
from benchmarks.harness.cpu_steal import CpuStealWatch
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.payloads import payloads
from benchmarks.harness.steps import Step
from benchmarks.models.lane_repositories import write_lane_repositories
from benchmarks.models.model_repository import model_files
from benchmarks.models.profiles import p95_ms, profiling_steps

_HIGH, _LOW = 1, 2
"""Priority classes."""
_START_S = 7.0
_TIME_OUT = "DEADLINE_EXCEEDED"
"""Words of gRPC."""


class ClosedLoopCollector:
    """Steps raise IsochroneError; an interrupt leaves nothing half-written. source: the models."""

    def __init__(self, records: ClosedLoopRecords, source: Path, bar: StageBar) -> None:
        self._records, self._plan, self._source, self._bar = records, records.plan, source, bar

    def prepare(self) -> None:
        """Link the models. Raises BenchmarkError where some are missing."""
        write_lane_repositories(self._records.repositories(), self._source, self._plan.models)

    def steps(self) -> Iterator[Step]:
        """All that is missing: profiles, turns."""
        plan, records = self._plan, self._records
        yield from profiling_steps(records.repositories().values(), plan.models, plan.batch_sizes, plan.profile_seconds)
        turn_s = _START_S + len(plan.phases) * (plan.warm_s + plan.seconds)
        for turn in records.turns():
            if not records.has(turn.file):
                yield Step(turn.server, turn_s, partial(self._take, turn))

    def _take(self, turn: LoopTurn) -> None:
        profiles = self._records.profiles()
        slo_ms = self._plan.slo_factor * p95_ms(profiles[self._plan.high])
        traffic = (Traffic(self._plan.high, 1.0, slo_ms, _HIGH), Traffic(self._plan.low, 1.0, None, _LOW))
        setup = ServerSetup(self._records.repositories(), traffic, profiles, on_miss="serve")
        requests = payloads(model_files(self._source, self._plan.models))
        with running(turn.server, setup) as server:
            # The first phase warms up: what is alone on a server at first is slower than later.
            self._take_phase(server.grpc_url, requests, slo_ms, self._plan.outstanding[0], self._plan.warm_s)
            phases = [
                self._take_phase(server.grpc_url, requests, slo_ms, n, self._plan.seconds) for n in self._plan.phases
            ]
        self._records.keep(turn.file, LoopRecord(phases))

    def _take_phase(self, url: str, requests: Payloads, slo_ms: float, outstanding: int, seconds: float) -> Phase:
        """Raises BenchmarkError where a request is refused or fails, but not where its answer does not come in time: a
        scheduler that puts late requests behind all others may never come to them.
        """
        plan = self._plan
        high = [
            Arrival(plan.gap_s * (i - 0.5), plan.high, slo_ms, _HIGH)
            for i in range(1, 1 + round((plan.warm_s + seconds) / plan.gap_s))
        ]
        with CpuStealWatch() as watch, _looping(url, plan.low, requests, outstanding) as loop:
            began_s = time.monotonic()
            outcomes = run_load(url, high, requests, on_progress=self._bar.advance)
            answered, lasted_s = loop.answers, time.monotonic() - began_s
        errors = [o.error for o in outcomes if o.status != "ok"] + [str(e) for e in (loop.error,) if e]
        if failed := [error for error in errors if _TIME_OUT not in error]:
            raise BenchmarkError(f"with {outstanding} outstanding, a request failed: {failed[0]}")
        counted = [o for o in outcomes if o.intended_s >= plan.warm_s]
        high_ms, unanswered = [o.latency_ms for o in counted], sum(o.status != "ok" for o in counted)
        return Phase(outstanding, high_ms, unanswered, answered / lasted_s, lateness_ms(outcomes), watch.found.lost)


@contextmanager
def _looping(url: str, model: str, requests: Payloads, outstanding: int) -> Iterator[RequestLoop]:
    with triton.InferenceServerClient(url) as client:
        loop = RequestLoop(client, {model: requests[model]}, outstanding, {"priority_class": _LOW})
        loop.start()
        try:
            yield loop
        finally:
            loop.stop()
