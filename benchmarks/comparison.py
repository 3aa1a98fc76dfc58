"""The same arrivals with `interference_aware` off and on, each on servers of their own. No output to the user here.

The arrivals come in two halves, run off A, on A, on B, off B: a machine that gets slower or faster meanwhile does so
for both. The toggle in config.pbtxt is all that differs; deadline and class travel with each request. Every server
starts with a scheduler that has learned nothing; a few seconds of warm-up load are left out of the figures. Profiles
are measured by the first server and kept for the others, so that both modes go by the same solo latencies.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.linux.cpu_topology import cores
from backend.load.arrivals import Traffic, poisson
from backend.load.generator import LoadInterrupted, run_load
from backend.load.outcomes import Outcome, first_error
from backend.load.server_metrics import MetricCounts, parse
from backend.server import processes
from backend.server.embedded import EmbeddedServer
from benchmarks.harness.calibration import capacity_per_s, solo_latency_ms
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.model_repository import link_models, short_temporary_folder, write_configs
from benchmarks.harness.payloads import payload

Mode = Literal["off", "on"]
MODES: tuple[Mode, Mode] = ("off", "on")

SLO_FACTOR = 4.0
RATE_MAX_PER_S = 500.0  # of all models; beyond it this load generator would be what is measured
WARM_UP_S = 4.0
READY_TIMEOUT_S = 90.0
_IN_FLIGHT_PER_LANE = 4  # enough that no lane waits, and that batches form
_SETTLED_S, _SETTLE_MAX_S = 0.7, 6.0  # the counts of a quiet model reach /metrics within half a second


@dataclass(frozen=True)
class DemoPlan:
    """What to compare. classes: model → priority class. load: fraction of the measured capacity. seconds: per mode."""

    source: Path
    classes: dict[str, int]
    seconds: float
    load: float
    seed: int


@dataclass(frozen=True)
class Calibration:
    """solo_ms: model → median latency without company, through the server."""

    solo_ms: dict[str, float]
    capacity_per_s: float


@dataclass(frozen=True)
class Segment:
    """One half of the arrivals under one mode. seconds: of the plan that the outcomes stand for."""

    mode: Mode
    half: int
    seconds: float
    outcomes: list[Outcome]


class Comparison:
    """Runs the plan; what it has found so far is in its fields at any time, also after a Ctrl-C.

    `on_stage` is told what begins and about how many seconds it takes; `on_progress` the seconds into it.
    """

    def __init__(
        self, plan: DemoPlan, on_stage: Callable[[str, float], None], on_progress: Callable[[float], None]
    ) -> None:
        self.plan = plan
        self.calibration: Calibration | None = None
        self.traffic: tuple[Traffic, ...] = ()
        self.segments: list[Segment] = []
        self.counts: dict[Mode, MetricCounts] = {mode: MetricCounts({}) for mode in MODES}
        self._on_stage, self._on_progress = on_stage, on_progress

    def run(self) -> None:
        """Raises IsochroneError or KeyboardInterrupt; nothing is left running or written either way."""
        folder = short_temporary_folder()
        try:
            files = link_models(self.plan.source, folder / "models", self.plan.classes)
            self._payloads = {model: payload(file, seed=i) for i, (model, file) in enumerate(files.items())}
            with self._server(folder, "off", first=True) as server:
                self._calibrate(server)
                self._measure(server, "off", [0])
            with self._server(folder, "on") as server:
                self._measure(server, "on", [0, 1])
            with self._server(folder, "off") as server:
                self._measure(server, "off", [1])
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def outcomes(self, mode: Mode) -> list[Outcome]:
        return [o for segment in self.segments if segment.mode == mode for o in segment.outcomes]

    def seconds(self, mode: Mode) -> float:
        """Of planned load whose outcomes are known."""
        return sum(segment.seconds for segment in self.segments if segment.mode == mode)

    @contextmanager
    def _server(self, folder: Path, mode: Mode, *, first: bool = False) -> Iterator[EmbeddedServer]:
        what = "starting the server and profiling the models" if first else "starting a fresh server"
        self._on_stage(f"{what}, interference_aware {mode}", 18.0 if first else 8.0)
        parameters = {"interference_aware": "true" if mode == "on" else "false", "on_miss": "reject"}
        write_configs(folder / "models", parameters)
        runtime_dir = str(folder / "run")
        env = {"ISOCHRONE_RUNTIME_DIR": runtime_dir}
        try:
            with EmbeddedServer(folder / "models", env=env, ready_timeout_s=READY_TIMEOUT_S) as server:
                yield server
        finally:  # the scheduler would wait a few seconds for models to come back, and go on from what it learned
            processes.end(lambda: processes.pids_with("ISOCHRONE_RUNTIME_DIR", runtime_dir))
            (folder / "run" / "cpu.state").unlink(missing_ok=True)

    def _calibrate(self, server: EmbeddedServer) -> None:
        self._on_stage("measuring each model alone", 1.0 * len(self._payloads))
        solo_ms = solo_latency_ms(server.grpc_url, self._payloads)
        self._on_stage("measuring the machine's capacity", 6.0)
        per_model = max(2, math.ceil(_IN_FLIGHT_PER_LANE * len(cores()) / len(self._payloads)))
        capacity = capacity_per_s(server.grpc_url, self._payloads, per_model=per_model, seconds=5.0)
        if capacity <= 0:
            raise BenchmarkError("the server answered no request while its capacity was measured")
        self.calibration = Calibration(solo_ms, capacity)
        rate = min(RATE_MAX_PER_S, self.plan.load * capacity) / len(solo_ms)
        self.traffic = tuple(
            Traffic(model, rate, round(SLO_FACTOR * solo_ms[model], 1), priority)
            for model, priority in self.plan.classes.items()
        )

    def _measure(self, server: EmbeddedServer, mode: Mode, halves: Sequence[int]) -> None:
        name = f"interference_aware {mode}"
        self._on_stage(f"{name}: warm-up", WARM_UP_S)
        run_load(
            server.grpc_url,
            poisson(self.traffic, WARM_UP_S, self.plan.seed + 1_000),
            self._payloads,
            on_progress=self._on_progress,
        )
        before = _settled_counts(server)
        for half in halves:
            rate = sum(t.rate_per_s for t in self.traffic)
            self._on_stage(f"{name}: load {half + 1} of 2, {rate:.0f} requests/s", self.plan.seconds / 2)
            self._load(server, mode, half)
        self.counts[mode] += _settled_counts(server) - before

    def _load(self, server: EmbeddedServer, mode: Mode, half: int) -> None:
        seconds = self.plan.seconds / 2
        arrivals = poisson(self.traffic, seconds, self.plan.seed + half)
        try:
            outcomes = run_load(server.grpc_url, arrivals, self._payloads, on_progress=self._on_progress)
        except LoadInterrupted as interrupted:
            seconds = max((o.intended_s for o in interrupted.outcomes), default=0.0)
            self.segments.append(Segment(mode, half, seconds, interrupted.outcomes))
            raise
        self.segments.append(Segment(mode, half, seconds, outcomes))
        if outcomes and all(o.status == "failed" for o in outcomes):
            raise BenchmarkError(f"every request failed; the first was told: {first_error(outcomes)}")


def _settled_counts(server: EmbeddedServer) -> MetricCounts:
    """Once they stand still."""
    end_s = time.monotonic() + _SETTLE_MAX_S
    before = parse(server.metrics())
    while time.monotonic() < end_s:
        time.sleep(_SETTLED_S)
        now = parse(server.metrics())
        if now == before:
            break
        before = now
    return before
