"""`python -m benchmarks.demo`: four models on one machine at its capacity, the scheduler off, then on, in a table.

The same arrivals come in two halves, run off A, on A, on B, off B: a machine that gets slower or faster meanwhile does
so for both. The toggle in config.pbtxt is all that differs; deadline and class travel with each request. Every server
starts with a scheduler that has learned nothing; a few seconds of warm-up load are left out of the figures. Profiles
are measured by the first server and kept for the others, so that both modes go by the same solo latencies.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from backend.errors import IsochroneError
from backend.linux.cpu_topology import cores
from backend.load.arrivals import Traffic
from backend.load.generator import Payloads
from backend.load.inputs import solo_ms
from backend.load.interleaved_load import Bench, Schedule
from backend.load.outcomes import MeasuredLoad, first_error
from backend.load.server_metrics import MetricCounts
from backend.load.workload import Workload
from backend.progress_bar import StageBar, console
from backend.runtime_dir import VARIABLE
from backend.server import processes
from backend.server.embedded import EmbeddedServer
from backend.server.paths import short_temporary_folder
from benchmarks.demo_report import MODES, Mode, details, table, verdict
from benchmarks.harness.calibration import capacity_per_s
from benchmarks.harness.command import INTERRUPTED, USAGE_ERROR, interrupt_on_term
from benchmarks.harness.loads import expect_answers
from benchmarks.harness.machine import versions
from benchmarks.harness.payloads import payloads
from benchmarks.harness.servers import settled_counts, temporary_server
from benchmarks.models.model_repository import link_models, model_files, write_configs
from profiler.host import cpu_name

CLASSES = {"resnet50": 1, "yolov8n": 2, "vgg19": 1, "vit_b16": 2}
"""Model → priority class. All take 8–25 ms on a server's core: heavy beside the transport of their inputs."""
SLO_FACTOR = 4.0
RATE_MAX_PER_S = 500.0  # of all models; beyond it this load generator would be what is measured
_WARM_UP_S = 4.0
_IN_FLIGHT_PER_LANE = 4  # enough that no lane waits, and that batches form
_FIRST_START_S, _START_S, _CAPACITY_S, _SOLO_CALLS = 18.0, 8.0, 5.0, 40

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Demo:
    """Both modes under the same load; `measured` and `counts` hold what was found so far, also after a Ctrl-C.

    seconds: per mode. load: fraction of the measured capacity.
    """

    source: Path
    seconds: float
    load: float
    seed: int
    bar: StageBar
    models: Sequence[Traffic] = ()
    solo_ms: dict[str, float] = field(default_factory=dict)
    capacity_per_s: float = math.nan
    measured: list[MeasuredLoad] = field(default_factory=list)
    counts: dict[Mode, MetricCounts] = field(default_factory=lambda: {mode: MetricCounts({}) for mode in MODES})

    def run(self) -> None:
        """Raises IsochroneError or KeyboardInterrupt; nothing is left running or written either way."""
        runtime = short_temporary_folder()
        try:
            requests = payloads(model_files(self.source, CLASSES))
            with self._server(runtime, "off", _FIRST_START_S) as server:
                self._calibrate(server, requests)
                self._measure(server, requests, "off", [0])
            with self._server(runtime, "on", _START_S) as server:
                self._measure(server, requests, "on", [0, 1])
            with self._server(runtime, "off", _START_S) as server:
                self._measure(server, requests, "off", [1])
        finally:
            shutil.rmtree(runtime, ignore_errors=True)

    @contextmanager
    def _server(self, runtime: Path, mode: Mode, seconds: float) -> Iterator[EmbeddedServer]:
        self.bar.begin(f"starting a fresh server, interference_aware {mode}", seconds)
        try:
            with temporary_server(partial(self._write, mode), env={VARIABLE: str(runtime)}) as server:
                yield server
        finally:  # the scheduler would wait a few seconds for models to come back, and go on from what it learned
            processes.end(lambda: processes.pids_with(VARIABLE, str(runtime)))
            (runtime / "cpu.state").unlink(missing_ok=True)

    def _write(self, mode: Mode, repository: Path) -> None:
        link_models(self.source, repository, CLASSES)
        write_configs(repository, {"interference_aware": "true" if mode == "on" else "false", "on_miss": "reject"})

    def _calibrate(self, server: EmbeddedServer, requests: Payloads) -> None:
        self.bar.begin("measuring each model solo", 1.0 * len(requests))
        self.solo_ms = solo_ms(server.grpc_url, requests, _SOLO_CALLS)
        self.bar.begin("measuring the machine's capacity", _CAPACITY_S + 1.0)
        self.capacity_per_s = capacity_per_s(server.grpc_url, requests, _IN_FLIGHT_PER_LANE, _CAPACITY_S)
        rate = min(RATE_MAX_PER_S, self.load * self.capacity_per_s) / len(requests)
        self.models = [
            Traffic(model, rate, round(SLO_FACTOR * self.solo_ms[model], 1), priority)
            for model, priority in CLASSES.items()
        ]

    def _measure(self, server: EmbeddedServer, requests: Payloads, mode: Mode, halves: Sequence[int]) -> None:
        workload = Workload(tuple(self.models), self.seconds / 2)
        schedule = Schedule(workload, None, (1.0,), 2, self.seed, _WARM_UP_S)
        bench = Bench(schedule, requests, self.bar.begin, self.bar.advance, self.measured)
        bench.warm_up(mode, server.grpc_url, 1.0)
        before = settled_counts(server)
        for half in halves:
            bench.measure(mode, server.grpc_url, 1.0, half)
            expect_answers(self.measured[-1].outcomes)
        self.counts[mode] += settled_counts(server) - before

    def conditions(self) -> str:
        """Tells what the figures depend on."""
        rate_per_s = sum(m.rate_per_s for m in self.models)
        solo = ", ".join(f"{model} {ms:.1f}" for model, ms in self.solo_ms.items())
        return (
            f"conditions: {cpu_name()}, {len(cores())} cores shared with the load generator, {len(cores())} lanes; "
            f"{rate_per_s:.1f} requests/s of {self.capacity_per_s:.1f}/s measured capacity, {self.seconds:g} s per "
            f"mode, seed {self.seed}; latency alone in ms: {solo}; "
            f"{versions('isochrone', 'nvidia-pytriton', 'onnxruntime', 'tritonclient')}"
        )


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=2, max=600, help="Load per mode, half of it at a time.")] = 32.0,
    load: Annotated[float, typer.Option(min=0.05, max=3, help="Offered load as a fraction of capacity.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Of the arrival times.")] = 1,
    repository: Annotated[Path, typer.Option(help="Where `make models` put the models.")] = Path("model_repository"),
) -> None:
    """The same Poisson load with interference_aware off and on, through tritonclient, on a stock tritonserver."""
    interrupt_on_term()
    out = console()
    code = 0
    out.print(
        f"{len(CLASSES)} models share this machine's {len(cores())} cores at {load:.0%} of its capacity; the same "
        "arrivals meet interference_aware off, then on",
        highlight=False,
    )
    starts_and_calibration_s = _FIRST_START_S + 2 * _START_S + len(CLASSES) + _CAPACITY_S + 1.0
    with StageBar(out, starts_and_calibration_s + 3 * _WARM_UP_S + 2 * seconds) as bar:
        found = Demo(repository, seconds, load, seed, bar)
        try:
            found.run()
        except IsochroneError as error:
            code = USAGE_ERROR
            print(f"demo: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            code = INTERRUPTED
            partial_too = ", and what follows is partial" if found.measured else ""
            print(f"demo: interrupted; the server is stopped{partial_too}", file=sys.stderr)
    if found.measured:
        out.print(table(found.models, found.measured, SLO_FACTOR))
        lines = (*details(found.measured, found.counts), found.conditions())
        if (told := first_error(o for m in found.measured for o in m.outcomes)) is not None:
            lines = (*lines, f"the first request that failed was told: {told}")
        for line in (*lines, f"\n{verdict(found.measured)}"):
            out.print(line, highlight=False, markup=False)
    raise typer.Exit(code)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.demo")
