"""`isochrone simulate` from its options to its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, prod
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table

from backend.commands.json_file import write_result
from backend.errors import ConfigError
from backend.load.options import numbers
from backend.load.outcomes import Summary, by_class, by_model, summarise
from backend.load.workload import Workload, check_deadlines, check_models, read_workload
from backend.model_process.placement import preemptible_lanes
from backend.profiling.repository import find_versions, served_model
from backend.progress_bar import console
from backend.scheduler.core import Scheduler
from backend.simulation.contention import LinearContention, learned
from backend.simulation.device import Bandwidth, VirtualDevice
from backend.simulation.simulator import SimulatedModel, SimulationResult, simulate
from backend.tensors import TensorSpec
from predictor.samples import read_samples
from profiler.profile_file import NAME, read_profile

_LANES_MAX = 1024
_LOAD_MAX = 1e3
_GB_PER_S_MAX = 1e3
_WIDTH = 140
"""Width of the table, where it is not for a terminal."""


@dataclass(frozen=True)
class SimulateOptions:
    """lanes, loads: as the user wrote them, with commas between. overhead_ms: added to each execution on its lane.

    bandwidth_in, bandwidth_out: between host and device in GB/s; None: nothing takes time to move.
    """

    workload: Path
    model_repository: Path
    samples: Path | None = None
    lanes: str = "2"
    loads: str = "1"
    seed: int = 1
    overhead_ms: float = 0.0
    json: Path | None = None
    bandwidth_in: float | None = None
    bandwidth_out: float | None = None


class SimulatedPoint(msgspec.Struct, frozen=True):
    """One load on one number of lanes. lanes_busy: share of the lanes' time."""

    load: float
    lanes: int
    all: Summary
    classes: dict[str, Summary]
    models: dict[str, Summary]
    lanes_busy: float
    batches: int


def run_simulation(options: SimulateOptions) -> None:
    """Raises ConfigError, SamplesError or ProfileFileError for what cannot be used."""
    workload, trace = read_workload(options.workload)
    lanes = [round(n) for n in numbers("--lanes", options.lanes, 1, _LANES_MAX, whole=True)]
    loads = numbers("--load", options.loads, 0.0, _LOAD_MAX)
    if not (isfinite(options.overhead_ms) and 0.0 <= options.overhead_ms <= 1e6):
        raise ConfigError(f"--overhead-ms must lie in 0..1e6, got {options.overhead_ms:g}")
    bandwidth = Bandwidth(
        _bandwidth("--bandwidth-in", options.bandwidth_in), _bandwidth("--bandwidth-out", options.bandwidth_out)
    )
    models = _models(options.model_repository, workload)
    check_deadlines(workload, {model.name: model.profile.at(1).solo_ns / 1e6 for model in models})
    truth = LinearContention() if options.samples is None else learned(read_samples(options.samples).samples)
    points = []
    for load in loads:
        plan = workload.planned(load, options.seed, trace)
        if not plan:
            raise ConfigError(f"no request arrives in {workload.seconds:g} s at load {load:g}; ask for more of either")
        for n in lanes:
            device = VirtualDevice(truth, options.seed, bandwidth)
            ran = simulate(models, plan, Scheduler(n), device, round(options.overhead_ms * 1e6))
            points.append(_point(load, n, ran, workload.seconds))
    if options.json is not None:
        write_result(options.json, {"points": points})
    _show(workload, options, points)


def _models(repository: Path, workload: Workload) -> list[SimulatedModel]:
    """Models of the workload. Raises ConfigError or ProfileFileError where one cannot be read or was not profiled."""
    asked = {a.model for a in workload.models}
    versions, failed = find_versions(repository)
    check_models(workload, {*(version.model for version in versions), *failed})
    found = []
    for version in versions:
        if version.model not in asked:
            continue
        config = served_model(version)[0]
        profile = read_profile(version.directory / NAME)
        if profile is None or not profile.entries:
            raise ConfigError(
                f"model '{version.model}' has no profile; run `isochrone profile --model-repository {repository}`"
            )
        p = config.parameters
        found.append(
            SimulatedModel(
                version.model,
                profile.profile(),
                config.max_batch_size,
                p.interference_aware,
                p.on_miss == "reject",
                _row_bytes(config.inputs),
                _row_bytes(config.outputs),
                preemptible_lanes=_LANES_MAX if preemptible_lanes(config) else 0,
            )
        )
    broken = [name for name in asked if name in failed]
    if broken:
        raise ConfigError(f"model '{broken[0]}': {failed[broken[0]]}")
    return found


def _bandwidth(option: str, gb_per_s: float | None) -> float:
    if gb_per_s is None:
        return inf
    if not (isfinite(gb_per_s) and 0.0 < gb_per_s <= _GB_PER_S_MAX):
        raise ConfigError(f"{option} must lie above 0 and up to {_GB_PER_S_MAX:g}, got {gb_per_s:g}")
    return gb_per_s


def _row_bytes(specs: Sequence[TensorSpec]) -> int:
    """Dynamic dimensions are 1; text never leaves the host."""
    moved = (spec for spec in specs if not spec.datatype.numpy.hasobject)
    return sum(spec.datatype.numpy.itemsize * prod(max(1, d) for d in spec.shape) for spec in moved)


def _point(load: float, lanes: int, ran: SimulationResult, seconds: float) -> SimulatedPoint:
    outcomes = ran.outcomes()
    return SimulatedPoint(
        load,
        lanes,
        summarise(outcomes, seconds),
        by_class(outcomes, seconds),
        by_model(outcomes, seconds),
        ran.busy_s / (lanes * max(ran.seconds, seconds)),
        ran.batches,
    )


def _show(workload: Workload, options: SimulateOptions, points: Sequence[SimulatedPoint]) -> None:
    out = console(_WIDTH)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    classes = sorted({c for point in points for c in point.classes}, key=int)
    by_class = [f"class {c} met %" for c in classes]
    figures = ("rejected", "p50 ms", "p99 ms", "goodput/s", "lanes busy %", "requests per batch")
    for name in ("load", "lanes", "requests", "met %", *by_class, *figures):
        table.add_column(name, justify="right")
    for point in points:
        s = point.all
        shares = (f"{100 * point.classes[c].met_share:.1f}" if c in point.classes else "–" for c in classes)
        table.add_row(
            f"{point.load:g}",
            str(point.lanes),
            f"{s.requests:,}",
            f"{100 * s.met_share:.1f}",
            *shares,
            str(s.rejected),
            f"{s.p50_ms:.1f}",
            f"{s.p99_ms:.1f}",
            f"{s.goodput_per_s:.1f}",
            f"{100 * point.lanes_busy:.0f}",
            f"{(s.requests - s.rejected) / max(1, point.batches):.1f}",
        )
    out.print(table)
    learnt = f"learned from {options.samples}"
    contention = "none: give --samples, recorded with ISOCHRONE_SAMPLES" if options.samples is None else learnt
    links = (("in", options.bandwidth_in), ("out", options.bandwidth_out))
    bandwidths = ", ".join(f"{rate:g} GB/s {name}" for name, rate in links if rate is not None)
    out.print(
        f"{len(workload.models)} models, {workload.arrivals} arrivals over {workload.seconds:g} s, "
        f"seed {options.seed}; interference: {contention}" + (f"; transfers: {bandwidths}" if bandwidths else ""),
        highlight=False,
        soft_wrap=True,
    )
