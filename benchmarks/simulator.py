"""Cost of a simulation: a million requests over twenty models through the production scheduler, on one core."""

from __future__ import annotations

import time
from typing import Annotated

import psutil  # type: ignore[import-untyped]
import typer

from backend.load.arrivals import Traffic, poisson
from backend.load.outcomes import summarise
from backend.scheduler.core import Scheduler
from backend.simulation.contention import LinearContention
from backend.simulation.device import VirtualDevice
from backend.simulation.simulator import SimulatedModel, simulate
from benchmarks.harness.machine import machine_speed
from benchmarks.models.synthetic_models import synthetic_profile

_TRUTH = LinearContention((0.15, 0.05, 0.15))
_SLO_FACTOR = 4.0


def main(
    requests: Annotated[int, typer.Option(min=1)] = 1_000_000,
    models: Annotated[int, typer.Option(min=1)] = 20,
    lanes: Annotated[int, typer.Option(min=1)] = 4,
    load: Annotated[float, typer.Option(help="1: every lane is busy with batches of one, alone.")] = 0.7,
) -> None:
    """Print how long it took."""
    profiles = (synthetic_profile((5.0 + 1.5 * i) * 1e6, 0.3 + 0.03 * (i % 20), 0.1, 0.3) for i in range(models))
    served = [SimulatedModel(f"m{i}", profile, rejects=True) for i, profile in enumerate(profiles)]
    solo_s = [m.profile.at(1).solo_ns / 1e9 for m in served]
    rate = load * lanes / sum(solo_s)
    traffic = [
        Traffic(m.name, rate, _SLO_FACTOR * 1e3 * s, 1 + i % 2)
        for i, (m, s) in enumerate(zip(served, solo_s, strict=True))
    ]
    plan = poisson(traffic, requests / (rate * models), seed=1)
    began_s, cpu_s = time.monotonic(), time.process_time()
    ran = simulate(served, plan, Scheduler(lanes), VirtualDevice(_TRUTH, 1))
    took_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    kept = summarise(ran.outcomes(), ran.seconds).met_share
    memory_mb = psutil.Process().memory_info().rss / 1e6
    typer.echo(
        f"{len(plan):,} requests over {models} models in {ran.seconds:,.0f} s of virtual time on {lanes} lanes at load "
        f"{load:g}: {ran.batches:,} batches, {100 * kept:.1f} % of deadlines kept; took {took_s:.0f} s, {cpu_s:.0f} s "
        f"of one core, {cpu_s / len(plan) * 1e6:.0f} µs a request; {memory_mb:,.0f} MB; {machine_speed()}"
    )


if __name__ == "__main__":
    typer.run(main)
