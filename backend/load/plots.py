"""A comparison's plots, a file each: deadlines kept and p99 over load, latencies at the highest load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backend.load.figures import MeasuredPoint, cell
from backend.load.outcomes import MeasuredLoad

mpl.use("Agg")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.dpi": 130,
    "savefig.bbox": "tight",
}
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0", "#3ca951")
_MARKS = "os^Dv<>ph"


def save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Software": None})
    return path


def draw(
    found: Sequence[MeasuredPoint], measured: Sequence[MeasuredLoad], targets: Sequence[str], folder: Path
) -> list[Path]:
    """Returns the files it wrote."""
    with mpl.rc_context(STYLE):
        figures = {"deadlines": _over_load(found, targets), "latencies": _latencies(measured, targets)}
        return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def _style(i: int) -> str:
    """Tells lines apart that share a colour."""
    return "-" if i < len(COLOURS) else "--"


def _over_load(found: Sequence[MeasuredPoint], targets: Sequence[str]) -> Figure:
    figure = Figure(figsize=(8.6, 3.2))
    met, late = figure.subplots(1, 2)
    loads = sorted({p.load for p in found})
    for i, target in enumerate(targets):
        cells = [(load, here) for load in loads if (here := cell(found, target, load))]
        at = [load for load, _ in cells]
        how = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": _MARKS[i % len(_MARKS)],
            "ms": 4,
            "lw": 1.3,
            "ls": _style(i),
        }
        met.plot(at, [100 * here.met() for _, here in cells], label=target, **how)
        low, high = zip(*(here.range(lambda p: 100 * p.all.met_share) for _, here in cells), strict=True)
        met.fill_between(at, low, high, color=COLOURS[i % len(COLOURS)], alpha=0.12, lw=0)
        late.plot(at, [here.median(lambda p: p.all.p99_ms) for _, here in cells], **how)
    met.set(xlabel="load", ylabel="deadlines kept, %", ylim=(0, 102))
    late.set(xlabel="load", ylabel="p99 latency of the answered, ms", yscale="log")
    late.grid(which="minor", alpha=0.1)
    figure.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(0.92, 0.5))
    return figure


def _latencies(measured: Sequence[MeasuredLoad], targets: Sequence[str]) -> Figure:
    """Shares of all that was sent: what was rejected or failed keeps a curve below 100 %."""
    figure = Figure(figsize=(5.6, 3.2))
    axes: Axes = figure.subplots()
    highest = max(m.load for m in measured)
    for i, target in enumerate(targets):
        outcomes = [o for m in measured if m.target == target and m.load == highest for o in m.outcomes]
        answered = np.sort([o.latency_ms for o in outcomes if o.status == "ok"])
        share = 100 * np.arange(1, len(answered) + 1) / max(1, len(outcomes))
        axes.plot(answered, share, lw=1.3, ls=_style(i), color=COLOURS[i % len(COLOURS)], label=target)
    axes.set(xlabel=f"latency at load {highest:g}, ms", ylabel="of all requests, %", xscale="log", ylim=(0, 102))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
