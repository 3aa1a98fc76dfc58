"""Cost of routing: process time of a pick, and of taking in a snapshot, where every endpoint holds every model.

Emulated devices in virtual time, as in `benchmarks.fleet`, so that picks find what they find there: batches that run
and wait, and requests on their way.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from backend.fleet.decisions import RouteRequest
from backend.fleet.snapshot import DeviceSnapshot
from benchmarks.fleet.fleet_run import FleetRun, SnapshotTiming
from benchmarks.fleet.layout import fleet_layout
from benchmarks.fleet.plan import POISSON
from benchmarks.fleet.routers import IsochroneRouter
from benchmarks.harness.machine import machine_speed


class TimedRouter(IsochroneRouter):
    """The production router's core, and the process time of its calls in nanoseconds."""

    took_ns: defaultdict[str, list[int]]

    def observe(self, device: int, snapshot: DeviceSnapshot, now_ns: int) -> None:
        began_ns = time.process_time_ns()
        super().observe(device, snapshot, now_ns)
        self.took_ns["snapshot"].append(time.process_time_ns() - began_ns)

    def choose(self, request: RouteRequest, now_ns: int) -> int:
        began_ns = time.process_time_ns()
        found = super().choose(request, now_ns)
        self.took_ns["pick"].append(time.process_time_ns() - began_ns)
        return found


def main(
    load: Annotated[float, typer.Option(help="as in benchmarks.fleet")] = 0.8,
    models: Annotated[int, typer.Option(help="that every endpoint holds")] = 6,
    seconds: Annotated[float, typer.Option(help="of virtual time")] = 1.0,
) -> None:
    """Print p50 and p99 of the process time by the number of endpoints."""
    before, table = machine_speed(), Table("endpoints", "what", "p50 us", "p99 us", "calls")
    for endpoints in (10, 100):
        layout = fleet_layout(0, endpoints, models)
        layout = replace(layout, holders=tuple(tuple(range(endpoints)) for _ in layout.models))
        router = TimedRouter(layout)
        router.took_ns = defaultdict(list)
        FleetRun(layout, router, 2, SnapshotTiming(100.0)).run(layout.requests(load, seconds, POISSON), seconds)
        for what, took_ns in sorted(router.took_ns.items()):
            p50, p99 = np.percentile(np.array(took_ns) / 1e3, (50, 99))
            table.add_row(str(endpoints), what, f"{p50:.0f}", f"{p99:.0f}", str(len(took_ns)))
    console = Console()
    console.print(table)
    console.print(f"{models} models on each, load {load:g}, one core, Python, virtual time")
    console.print(f"{before} before, {machine_speed()} after", highlight=False)


if __name__ == "__main__":
    typer.run(main)
