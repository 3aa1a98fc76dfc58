"""Cost of telling others of a device: process time of a snapshot, of a model's part of the backlog, of what a model on
several devices asks for, and of a batch's interference.

The scheduler of `benchmarks.decision`, held at as many running batches and waiting requests, and described now and
then, so that its predictor has learned in between.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from backend.fleet.snapshot import encode
from backend.scheduler.interference import InterferenceAccount
from backend.scheduler.messages import Ping
from backend.scheduler_process.device_snapshot import DeviceDescription
from benchmarks.decision import Steady
from benchmarks.harness.machine import machine_speed


class _TimedAccount(InterferenceAccount):
    """An account of interference, each batch timed."""

    def __init__(self) -> None:
        super().__init__()
        self.took_ns: list[int] = []

    def add(self, *batch: Any) -> None:
        begun = time.process_time_ns()
        super().add(*batch)
        self.took_ns.append(time.process_time_ns() - begun)


def main(
    snapshots: Annotated[int, typer.Option(help="per row")] = 1_000,
    steps: Annotated[int, typer.Option(help="batches that finish between two of them")] = 3,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Print p50 and p99 of the process time on the deciding thread, and on the publisher's."""
    before = machine_speed()
    table = Table("models", "running", "waiting", "what", "p50 us", "p99 us", "bytes")
    for models, running, waiting in ((4, 2, 16), (16, 16, 64), (64, 16, 256)):
        steady = Steady(running, waiting, seed, models)
        description = DeviceDescription("cpu", "benchmark")
        account = steady.scheduler.latency.interference = _TimedAccount()
        names = ("snapshot", "encoding, elsewhere", "a model's part", "load, asked for")
        spent: dict[str, list[int]] = {name: [] for name in names}
        for _ in range(snapshots):
            for _ in range(steps):
                steady.step()
            begun = time.process_time_ns()
            snapshot = description.snapshot(steady.scheduler, steady.now_ns, time.time_ns())
            made = time.process_time_ns()
            line = encode(snapshot)
            encoded = time.process_time_ns()
            source = next(iter(steady.scheduler.sources.values()))
            description.backlog_ns(steady.scheduler, source, steady.now_ns)
            told = time.process_time_ns()
            description.load(steady.scheduler, source, Ping(1), steady.now_ns)
            ends = (made, encoded, told, time.process_time_ns())
            for name, took_ns in zip(names, np.diff((begun, *ends)).tolist(), strict=True):
                spent[name].append(took_ns)
        spent["a batch's interference"] = account.took_ns
        for name, took in spent.items():
            p50, p99 = np.percentile(np.array(took) / 1e3, (50, 99))
            size = str(len(line)) if name == "encoding, elsewhere" else ""
            table.add_row(*map(str, (models, running, waiting)), name, f"{p50:.0f}", f"{p99:.0f}", size)
    console = Console()
    console.print(table)
    console.print(f"{steps} batches finish between two snapshots; one core, Python, virtual time, seed {seed}")
    console.print(f"{before} before, {machine_speed()} after", highlight=False)


if __name__ == "__main__":
    typer.run(main)
