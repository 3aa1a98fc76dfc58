"""Plots of the comparison on an emulated GPU; each says that it is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backend.load.plots import COLOURS, STYLE, save
from benchmarks.gpu_emulated.clairvoyant.reference import ReferenceFigures
from benchmarks.gpu_emulated.figures import runs_of
from benchmarks.gpu_emulated.plan import GpuPlan
from benchmarks.gpu_emulated.runs import RunFigures

_MARKS, _REFERENCE_COLOUR = "os^Dv<>phX", "#222222"


def draw(
    plan: GpuPlan,
    runs: Sequence[RunFigures],
    best: Mapping[tuple[str, float], int],
    references: Sequence[ReferenceFigures],
    folder: Path,
) -> dict[str, Path]:
    """Name of the plot → its file."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figures = {"loads": _over_loads(plan, runs, best), "lanes": _over_lanes(plan, runs)}
        if references:
            figures["reference"] = _references(plan, references)
        return {name: save(figure, folder / f"{name}.png") for name, figure in figures.items()}


def _over_loads(plan: GpuPlan, runs: Sequence[RunFigures], best: Mapping[tuple[str, float], int]) -> Figure:
    def kept(rival: str, load: float, of_class: str | None) -> float:
        return 100 * fmean(r.kept(of_class) for r in runs_of(runs, rival, load, best[rival, load]).values())

    figure = Figure(figsize=(8.6, 3.2))
    for axes, of_class in zip(figure.subplots(1, 2), (None, "1"), strict=True):
        for i, rival in enumerate(plan.rivals):
            _line(axes, i, rival, plan.loads, [kept(rival, load, of_class) for load in plan.loads])
        what = "deadlines kept" if of_class is None else f"deadlines of class {of_class} kept"
        axes.set(xlabel="load", ylabel=f"{what}, %", ylim=(0, 102))
    return _titled(figure, "each at its best number of lanes")


def _over_lanes(plan: GpuPlan, runs: Sequence[RunFigures]) -> Figure:
    figure = Figure(figsize=(2.9 * len(plan.loads) + 1.4, 3.2))
    for axes, load in zip(figure.subplots(1, len(plan.loads), squeeze=False)[0], plan.loads, strict=True):
        for i, rival in enumerate(plan.rivals):
            found = [runs_of(runs, rival, load, lanes) for lanes in plan.lanes]
            common = [[r for r in of_lanes.values() if r.draw < plan.lane_draws] for of_lanes in found]
            _line(axes, i, rival, plan.lanes, [100 * fmean(r.kept() for r in of_lanes) for of_lanes in common])
        axes.set(xlabel="lanes", ylim=(0, 102), title=f"load {load:g}")
    figure.axes[0].set_ylabel("deadlines kept, %")
    return _titled(figure, f"by number of lanes, {plan.lane_draws} draws")


def _references(plan: GpuPlan, references: Sequence[ReferenceFigures]) -> Figure:
    figure = Figure(figsize=(5.6, 3.2))
    axes: Axes = figure.subplots()
    names = [*plan.rivals, "best schedule found"]
    kept = [100 * fmean(r.kept(rival) for r in references) for rival in plan.rivals]
    kept.append(100 * fmean(r.kept() for r in references))
    colours = [*(COLOURS[i % len(COLOURS)] for i in range(len(plan.rivals))), _REFERENCE_COLOUR]
    order = sorted(range(len(names)), key=kept.__getitem__)
    axes.barh([names[i] for i in order], [kept[i] for i in order], color=[colours[i] for i in order])
    axes.set(xlabel="deadlines kept, %", xlim=(0, 102))
    axes.set_title(f"emulated A100, load {plan.at_load:g}", fontsize=9)
    return figure


def _line(axes: Axes, i: int, rival: str, at: Sequence[float], kept: Sequence[float]) -> None:
    style = "-" if i < len(COLOURS) else "--"
    axes.plot(
        at, kept, style, color=COLOURS[i % len(COLOURS)], marker=_MARKS[i % len(_MARKS)], ms=4, lw=1.3, label=rival
    )


def _titled(figure: Figure, what: str) -> Figure:
    figure.suptitle(f"emulated A100, {what}", fontsize=9, y=1.04)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(0.92, 0.5))
    return figure
