"""Cost of one decision: `Scheduler.handle()` with 16 lanes busy and 64 requests waiting over 12 models.

The production object in virtual time, kept at that state: every finish launches a batch, every launch is followed by
the arrival of as many requests as it took. Only the time inside `handle` counts; what the predictor is taught between
two decisions is shown by itself.
"""

from __future__ import annotations

import heapq
import random
import time
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from backend.load.plots import COLOURS, STYLE, save
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import PROTOCOL, Arrive, Command, Event, Finish, Join, Launch, Request
from benchmarks.harness.machine import machine_speed
from benchmarks.models.synthetic_models import synthetic_profile

_MODELS = 12
_MS = 1_000_000
_PER_NEIGHBOUR = 0.05
_AROUND_NS = 300_000


class Steady:
    """A scheduler held at `waiting` requests, a batch on each of `lanes` that is not held free; events are timed."""

    def __init__(self, lanes: int, waiting: int, seed: int, models: int = _MODELS) -> None:
        self._rng = random.Random(seed)
        self.scheduler = Scheduler(lanes)
        self.now_ns = 0
        self._models = models
        self._requests = 0
        self._running: list[tuple[int, int, Launch]] = []
        self._launched_ns: dict[int, int] = {}
        self._waiting_per_model = [0] * models
        self.arrive_ns: list[int] = []
        self.finish_ns: list[int] = []
        self.learn_ns: list[int] = []
        for model in range(models):
            profile = synthetic_profile((4 + 2 * model) * _MS, *(self._rng.uniform(0.1, 0.6) for _ in range(3)))
            self.scheduler.handle(model, Join(PROTOCOL, f"m{model}", "1", 8, None, profile), 0)
        while sum(self._waiting_per_model) < waiting:  # not until all lanes are taken: some may be held free for ever
            self._arrive(self._rng.randrange(self._models))
        self._waiting = waiting

    @property
    def all_ns(self) -> list[int]:
        return self.arrive_ns + self.finish_ns

    def step(self) -> None:
        """The next batch ends; then requests arrive until as many wait as before."""
        end_ns, batch_id, batch = heapq.heappop(self._running)
        self.now_ns = max(self.now_ns, end_ns)
        exec_ns = self.now_ns - self._launched_ns.pop(batch_id) - _AROUND_NS
        self._take(batch.source, Finish(batch.batch, max(1, exec_ns)), self.finish_ns)
        while sum(self._waiting_per_model) < self._waiting:
            self._arrive(self._rng.randrange(self._models))

    def _arrive(self, model: int) -> None:
        self._requests += 1
        self.now_ns += round(self._rng.expovariate(1 / (0.02 * _MS)))
        due = self.now_ns + round(self._rng.uniform(20, 400) * _MS)
        request = Request(self._requests, 1, self.now_ns, due, self._rng.choice((1, 2)))
        self._waiting_per_model[model] += 1
        self._take(model, Arrive((request,)), self.arrive_ns)

    def _take(self, source: int, event: Event, spent: list[int]) -> None:
        started = time.perf_counter_ns()
        commands: list[Command] = self.scheduler.handle(source, event, self.now_ns)
        decided = time.perf_counter_ns()
        spent.append(decided - started)
        if self.scheduler.learn():
            self.learn_ns.append(time.perf_counter_ns() - decided)
        for command in commands:
            assert isinstance(command, Launch)
            slowdown = (1.0 + _PER_NEIGHBOUR * len(self._running)) * self._rng.lognormvariate(0.0, 0.05)
            end_ns = self.now_ns + round(command.times.solo_ns * slowdown) + _AROUND_NS
            heapq.heappush(self._running, (end_ns, command.batch, command))
            self._launched_ns[command.batch] = self.now_ns
            self._waiting_per_model[command.source] -= len(command.requests)


LANES, WAITING = (1, 2, 4, 8, 16, 32), (8, 16, 32, 64, 128, 256)


def main(
    events: Annotated[int, typer.Option(help="batches that finish, per row")] = 5_000,
    seed: Annotated[int, typer.Option()] = 1,
    plot: Annotated[Path | None, typer.Option(help="Also draw the cost over lanes and waiting requests.")] = None,
) -> None:
    """Print p50 and p99 of `handle()` for both kinds of event."""
    before = machine_speed()
    table = Table("running", "waiting", "event", "p50 us", "p99 us", "mean us", "events")
    for running, waiting in ((2, 16), (16, 64), (16, 256)):
        steady = _held(running, waiting, seed, events)
        kinds = {"arrive": steady.arrive_ns, "finish": steady.finish_ns, "all": steady.all_ns, "learn": steady.learn_ns}
        for name, spent in kinds.items():
            p50, p99 = np.percentile(np.array(spent) / 1e3, (50, 99))
            mean = np.mean(spent) / 1e3
            table.add_row(str(running), str(waiting), name, f"{p50:.0f}", f"{p99:.0f}", f"{mean:.0f}", str(len(spent)))
    console = Console()
    console.print(table)
    console.print(f"{_MODELS} models, batch sizes up to 8, two classes; one core, Python, virtual time, seed {seed}")
    console.print(f"{before} before, {machine_speed()} after", highlight=False)
    if plot is not None:
        _draw(plot, seed, events)


def _held(lanes: int, waiting: int, seed: int, events: int) -> Steady:
    steady = Steady(lanes, waiting, seed)
    for _ in range(events):
        steady.step()
    return steady


def _draw(path: Path, seed: int, events: int) -> None:
    """The median and the 99th percentile of all events, a line per number of lanes."""
    figure = Figure(figsize=(8.6, 3.2))
    with mpl.rc_context(STYLE):
        both = figure.subplots(1, 2, sharey=True)
        for lanes, colour in zip(LANES, COLOURS, strict=False):
            spent = [np.percentile(np.array(_held(lanes, n, seed, events).all_ns) / 1e3, (50, 99)) for n in WAITING]
            for axes, values in zip(both, np.array(spent).T, strict=True):
                axes.plot(WAITING, values, "o-", ms=3, lw=1.3, color=colour, label=f"{lanes} lanes")
        for axes, name in zip(both, ("p50", "p99"), strict=True):
            axes.set(xlabel="waiting requests", ylabel=f"{name} of handle(), µs", xscale="log", yscale="log")
            axes.set_xticks(WAITING, list(map(str, WAITING)))
        figure.legend(
            *both[0].get_legend_handles_labels(), frameon=False, loc="center left", bbox_to_anchor=(0.92, 0.5)
        )
        save(figure, path)


if __name__ == "__main__":
    typer.run(main)
