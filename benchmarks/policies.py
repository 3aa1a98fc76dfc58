"""Ours against its rivals in virtual time, the same requests on the same device. `python -m benchmarks.policies`

The device's interference is learned from batches that a real server recorded (`make study`), so nothing here depends on
how busy this machine is: the same records and seed give the same table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from backend.load.arrivals import Arrival, Traffic, poisson
from backend.load.outcomes import Summary, summarise
from backend.simulation.contention import Truth, learned
from backend.simulation.device import VirtualDevice
from backend.simulation.simulator import SimulatedModel, simulate
from backend.stages import console
from benchmarks.errors import BenchmarkError
from benchmarks.profiles import p95_ms, read_profiles
from benchmarks.rivals import RIVALS
from predictor.samples import Sample, SamplesError, read_samples
from profiler.profile_file import NAME, ProfileFile

SLO_FACTORS = (2.0, 4.0, 8.0)
"""Of the profiled p95 of a batch of one, by turns over the models."""
CLASSES = (1, 2)
_WIDTH = 140


class Row(msgspec.Struct, frozen=True):
    """One rival at one load, over all seeds."""

    rival: str
    load: float
    all: Summary
    classes: dict[str, Summary]


def main(
    records: Annotated[Path, typer.Option(help="What `make study` recorded.")] = Path("results/study"),
    log: Annotated[str, typer.Option(help="Of its logs: the interference.")] = "test-set-3-2-lanes",
    lanes: Annotated[int, typer.Option(min=1)] = 2,
    load: Annotated[list[float] | None, typer.Option(help="1: every lane is busy with batches of one, alone.")] = None,
    rival: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(RIVALS)}.")] = None,
    seconds: Annotated[float, typer.Option(help="Of virtual time, per seed.")] = 60.0,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file too.")] = None,
) -> None:
    """Print what share of deadlines each keeps at each load."""
    samples, profiles = _records(records, log)
    names = rival or list(RIVALS)
    if unknown := [name for name in names if name not in RIVALS]:
        raise SystemExit(f"--rival {unknown[0]} is not one of {', '.join(RIVALS)}")
    truth, rows = learned(samples), []
    for at in track(load or [0.5, 0.7, 0.9, 1.1, 1.5], "loads", transient=True):
        plans = [_plan(profiles, at, lanes, seconds, seed) for seed in range(seeds)]
        rows += [_run(name, at, lanes, plans, samples, profiles, truth, seconds) for name in names]
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
    _show(rows, names)
    Console().print(
        f"{len(profiles)} models, deadlines of 2, 4 and 8 × p95, classes 1 and 2 by turns, Poisson, {seconds:g} s × "
        f"{seeds} seeds, {lanes} lanes; interference learned from {len(samples):,} batches ({log})",
        soft_wrap=True,
    )


def _records(folder: Path, log: str) -> tuple[tuple[Sample, ...], dict[str, ProfileFile]]:
    try:
        samples = read_samples(folder / "logs" / f"{log}.jsonl").samples
    except SamplesError as error:
        raise SystemExit(f"{error}; run `make study`") from None
    models = folder / "models"
    profiles = read_profiles(models, sorted(path.parents[1].name for path in models.glob(f"*/1/{NAME}")))
    if not profiles:
        raise BenchmarkError(f"'{folder}' holds no profiles; run `make study`")
    return samples, profiles


def _plan(profiles: dict[str, ProfileFile], load: float, lanes: int, seconds: float, seed: int) -> tuple[Arrival, ...]:
    """Every model at the same rate."""
    rate = load * lanes / sum(file.profile().at(1).solo_ns / 1e9 for file in profiles.values())
    traffic = [
        Traffic(model, rate, SLO_FACTORS[i % 3] * p95_ms(file), CLASSES[i // 3 % 2])
        for i, (model, file) in enumerate(profiles.items())
    ]
    return poisson(traffic, seconds, seed)


def _run(
    name: str,
    load: float,
    lanes: int,
    plans: list[tuple[Arrival, ...]],
    samples: tuple[Sample, ...],
    profiles: dict[str, ProfileFile],
    truth: Truth,
    seconds: float,
) -> Row:
    rival = RIVALS[name]
    models = rival.models([SimulatedModel(model, file.profile(), rejects=True) for model, file in profiles.items()])
    served = []
    for seed, plan in enumerate(plans):
        scheduler = rival.scheduler(lanes, truth, samples)
        ran = simulate(models, rival.plan(plan), scheduler, VirtualDevice(truth, seed))
        served += [(original, r) for original, r in zip(plan, ran.outcomes(), strict=True)]
    whole = seconds * len(plans)
    by_class = {c: [r for a, r in served if a.priority == c] for c in CLASSES}
    classes = {str(c): summarise(found, whole) for c, found in by_class.items()}
    return Row(name, load, summarise([r for _, r in served], whole), classes)


def _show(rows: list[Row], names: list[str]) -> None:
    out = console(_WIDTH)
    loads = sorted({row.load for row in rows})
    table = Table("deadlines met, %: all (class 1 / 2)", *(f"load {load:g}" for load in loads), "what it is")
    by = {(row.rival, row.load): row for row in rows}
    for name in names:
        cells = []
        for load in loads:
            row = by[name, load]
            first, second = (100 * row.classes[str(c)].met_share for c in CLASSES)
            cells.append(f"{100 * row.all.met_share:.1f} ({first:.0f} / {second:.0f})")
        table.add_row(name, *cells, RIVALS[name].what)
    out.print(table)
    if {"stock", "ours", "oracle"} <= set(names):
        parts = []
        for load in loads:
            stock, ours, oracle = (by[name, load].all.met_share for name in ("stock", "ours", "oracle"))
            parts.append(
                f"load {load:g}: {(ours - stock) / (oracle - stock):.0%}" if oracle > stock else f"load {load:g}: –"
            )
        out.print(f"of the way from stock to the oracle ours goes {', '.join(parts)}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
