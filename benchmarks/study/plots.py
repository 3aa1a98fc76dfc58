"""The study's plots, a file each. Colours and marks stay with their subject from plot to plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backend.load.plots import COLOURS, STYLE, save
from benchmarks.study.plan import COPIED, label
from benchmarks.study.results import OfLanes, Results

LEARNER_COLOURS = {"offline": "#9c6b4e", "sgd": "#efb118", "rls": "#4269d0", "isochrone": "#ff725c"}


def draw(results: Results, folder: Path) -> dict[str, Path]:
    """Name of the plot → its file."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        return {
            name: save(figure, folder / f"{name}.png")
            for name, figure in (
                ("throughput", _throughput(results)),
                ("tasks", _tasks(results)),
                ("interference", _interference(results)),
                ("features", _features(results)),
                ("learners", _learners(results)),
            )
        }


def _throughput(results: Results) -> Figure:
    figure = Figure(figsize=(5.6, 3.2))
    axes = figure.subplots()
    for (model, file), colour in zip(results.profiles.items(), COLOURS, strict=False):
        sizes = [e.batch_size for e in file.entries]
        axes.plot(sizes, [e.rows_per_s for e in file.entries], "o-", ms=3, lw=1.4, color=colour, label=model)
    axes.set(xlabel="batch size", ylabel="requests per second, alone", ylim=(0, None))
    axes.set_xticks(sorted(set(results.plan.batch_sizes)))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _tasks(results: Results) -> Figure:
    figure = Figure(figsize=(5.6, 2.8))
    axes = figure.subplots()
    counts = np.arange(len(results.plan.tasks))
    for offset, lanes, name, colour in (
        (-0.2, 1, "sequential (1 lane)", COLOURS[5]),
        (0.2, 2, "concurrent (2 lanes)", COLOURS[0]),
    ):
        p99 = [t.p99_ms for t in results.tasks if t.lanes == lanes]
        bars = axes.bar(counts + offset, p99, 0.38, label=name, color=colour)
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axes.set_xticks(counts, [str(n) for n in results.plan.tasks])
    axes.set(xlabel=f"co-located tasks, all {COPIED}", ylabel="p99 latency, ms")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _interference(results: Results) -> Figure:
    figure = Figure(figsize=(5.6, 2.8))
    axes = figure.subplots()
    for (lanes, found), colour in zip(results.lanes.items(), COLOURS, strict=False):
        slowdowns = found.interference
        axes.plot(slowdowns, np.linspace(0, 1, len(slowdowns)), lw=1.6, color=colour, label=f"{lanes} lanes")
        p95 = float(np.percentile(slowdowns, 95))
        axes.plot([p95], [0.95], "o", ms=4, color=colour)
        axes.annotate(f"p95 {p95:.0%}", (p95, 0.95), (4, -10), textcoords="offset points", fontsize=8, color=colour)
    highest = max(float(np.percentile(found.interference, 99)) for found in results.lanes.values())
    axes.axvline(1.0, color="#888888", lw=0.8, ls=":")
    axes.set(xlabel="measured execution / profiled p95", ylabel="share of batches", xlim=(0.5, 1.1 * highest))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _features(results: Results) -> Figure:
    return _panels(results, 2.8, "relative error, %", _boxes)


def _boxes(axes: Axes, found: OfLanes) -> None:
    errors = [100 * spread.errors for spread in found.features.values()]
    drawn = axes.boxplot(errors, whis=(5, 95), showfliers=False, patch_artist=True, widths=0.6)
    for box, name in zip(drawn["boxes"], found.features, strict=True):
        box.set_facecolor("#ffb4a8" if name == "integral" else "#c9d5f2")
    for median in drawn["medians"]:
        median.set_color("#333333")
    axes.set_xticks(range(1, len(errors) + 1), list(found.features), rotation=30, ha="right", fontsize=8)


def _learners(results: Results) -> Figure:
    figure = _panels(results, 2.9, "MSE of slowdown", _bars, sharey=False)
    figure.axes[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _bars(axes: Axes, found: OfLanes) -> None:
    at = np.arange(len(found.tested))
    for i, (name, colour) in enumerate(LEARNER_COLOURS.items()):
        mse = [tested.scores[name].mse for tested in found.tested.values()]
        axes.bar(at + 0.2 * (i - 1.5), mse, 0.19, label=label(name), color=colour)
    for j, tested in enumerate(found.tested.values()):
        for name, height, style in (("trees", tested.ceiling, ":"), ("noise", tested.noise.mse, "--")):
            shown = name if j == 0 else None
            axes.plot([j - 0.45, j + 0.45], [height] * 2, color="#333333", lw=1.2, ls=style, label=shown)
    axes.set_xticks(at, list(found.tested), fontsize=8)


def _panels(
    results: Results, height: float, ylabel: str, fill: Callable[[Axes, OfLanes], None], *, sharey: bool = True
) -> Figure:
    """A panel per number of lanes."""
    figure = Figure(figsize=(3.4 * len(results.lanes), height))
    panels = figure.subplots(1, len(results.lanes), sharey=sharey, squeeze=False)[0]
    for axes, (lanes, found) in zip(panels, results.lanes.items(), strict=True):
        fill(axes, found)
        axes.set_title(f"{lanes} lanes", fontsize=9)
    panels[0].set_ylabel(ylabel)
    return figure
