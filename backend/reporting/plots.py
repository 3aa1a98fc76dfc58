"""Plots of a report: causes of lateness by model, and the matrix of who slows whom. Needs matplotlib, an extra."""

from __future__ import annotations

from io import BytesIO

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backend.load.plots import COLOURS, STYLE
from backend.reporting.attribution import CAUSES
from backend.reporting.document import Plot
from backend.reporting.figures import Figures
from backend.reporting.layout import MODELS_MAX, shown_models


def draw_plots(figures: Figures) -> dict[str, Plot]:
    """Plots by their section, without those that would be empty."""
    found = {}
    with mpl.rc_context(STYLE):
        if figures.late:
            found["late"] = Plot(_png(_causes(figures)), "Mean time of a late request from arrival to answer, by cause")
        if figures.pairs:
            found["pairs"] = Plot(
                _png(_matrix(figures)),
                "Share of a batch's execution that its co-runners cost it, and milliseconds, by whose batches they are",
            )
    return found


def _png(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _causes(figures: Figures) -> Figure:
    late = figures.late[:MODELS_MAX][::-1]
    figure = Figure(figsize=(8.6, 0.8 + 0.35 * len(late)))
    axes: Axes = figure.subplots()
    names = [f"{sums.model} ({sums.requests:,})" for sums in late]
    left = np.zeros(len(late))
    for colour, cause in zip(COLOURS, CAUSES, strict=False):
        width = np.array([max(0, sums.of(cause)) / sums.requests / 1e6 for sums in late])
        if width.any():
            axes.barh(names, width, left=left, color=colour, label=cause, height=0.7)
            left += width
    slos = [sums.slo_ns / sums.requests / 1e6 for sums in late]
    axes.plot(slos, names, "|", color="black", ms=14, label="mean objective")
    axes.set(xlabel="ms, mean of the late requests")
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _matrix(figures: Figures) -> Figure:
    shown = shown_models(figures)
    share = np.zeros((len(shown), len(shown)))
    words = {}
    for pair in figures.pairs:
        if pair.model in shown and pair.by in shown:
            at = shown.index(pair.model), shown.index(pair.by)
            share[at] = max(0.0, 100.0 * pair.share)
            words[at] = f"{100.0 * pair.share:.1f} %\n{pair.per_batch_ns / 1e6:.2f} ms"
    side = 1.6 + 0.6 * len(shown)
    figure = Figure(figsize=(side + 1.4, side))
    axes: Axes = figure.subplots()
    image = axes.imshow(share, cmap="Reds", vmin=0.0)
    for (i, j), text in words.items():
        dark = share[i, j] > 0.6 * share.max()
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set(xlabel="slowed by", ylabel="batches of")
    axes.set_xticks(range(len(shown)), shown, rotation=45, ha="right")
    axes.set_yticks(range(len(shown)), shown)
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, shrink=0.7, label="% of execution")
    return figure
