"""The report on new types of machines in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from benchmarks.harness import markdown
from benchmarks.machines.leave_one_out import Figure, Rested, WholeMachine
from benchmarks.machines.rivals import ALONE, OURS


class MachineSource(NamedTuple):
    """Machines of one source, each new once, the others known."""

    title: str
    data: str
    figures: Sequence[Figure]
    whole: Sequence[WholeMachine]


def report(
    parts: Sequence[MachineSource], rested: Sequence[Rested], repeats: int, shown: int, costs: Mapping[str, str]
) -> str:
    """shown: samples of the new machine in the comparison with rivals; costs: by operation."""
    return markdown.document(
        [
            "# New types of machines",
            "Slowdowns on a machine type that is new, predicted from other machines and a few samples of its own "
            "([how](../explanation/predictor.md#machines)). `make bench-machines` runs all of it and writes this file. "
            "The data are measurements that others published, in `data/` with their licences; no GPU takes part.",
            "**Conditions.** Each machine in turn is the new one; of the others all samples are known. Its own samples "
            f"are drawn at random, {repeats} times anew. The figure is the mean of |predicted / measured − 1| over all "
            "that was not drawn, in %: mean over the draws ± standard deviation. Solo latencies are known on all "
            "machines, and peaks as data sheets have them. Constants are the same for all machines; how strongly "
            "numbers are shrunk is learned on the known machines.",
            *[text for part in parts for text in _part(part, shown)],
            *_rested(rested, shown),
            "## What it costs",
            "CPU time on one core of this machine, of learning the samples of the types of GPU by turns and of "
            "predicting them. A sample is only remembered; now and then the machine is fitted anew, which is the p99.",
            markdown.table("operation | µs", [[name, text] for name, text in costs.items()]),
        ]
    )


def _part(part: MachineSource, shown: int) -> list[str]:
    machines = [found.machine for found in part.whole]
    at = {(figure.rival, figure.machine, figure.samples): figure for figure in part.figures}
    names = {figure.rival: figure.what for figure in part.figures if figure.samples == shown}
    counts = sorted({figure.samples for figure in part.figures})
    rivals = [
        [_bold(name), *(_cell(at[name, machine, shown]) for machine in machines), what] for name, what in names.items()
    ]
    whole = [
        [
            "*all samples*, fitted",
            *(f"{100 * w.fitted:.1f}" for w in part.whole),
            "two numbers, error on the same samples",
        ],
        [
            "*all samples*, 10-fold",
            *(f"{100 * w.unseen:.1f}" for w in part.whole),
            "two numbers, error on unseen tenths",
        ],
    ]
    growth = [
        [f"{name}, {count} samples", *(_cell(at[name, machine, count]) for machine in machines)]
        for name in (OURS, ALONE)
        for count in counts
    ]
    ratios = [
        [f"{count} samples", *(f"{_mean(at[OURS, w.machine, count]) / (100 * w.unseen):.2f}" for w in part.whole)]
        for count in counts
    ]
    return [
        f"## {part.title}",
        part.data + f" Samples: {', '.join(f'{w.machine} {w.samples}' for w in part.whole)}.",
        f"With {shown} samples of the new machine:",
        markdown.table(["", *machines, "what it is"], [*rivals, *whole]),
        "By number of samples:",
        markdown.table(["", *machines], growth),
        f"Error of *{OURS}* over that of *all samples*, both on unseen ones:",
        markdown.table(["", *machines], ratios),
    ]


def _rested(rested: Sequence[Rested], shown: int) -> list[str]:
    if not rested:
        return []
    machines = list(rested[0].mapes)
    rows = [
        [f"`{r.constant}`", *(" / ".join(f"{100 * mape:.1f}" for mape in r.mapes[m]) for m in machines)] for r in rested
    ]
    return [
        "## How much rests on constants",
        "The priors' constants (`predictor/machines/priors.py`) were chosen by hand, once, with an eye on the types of "
        f"GPU above; the slices had no part in it. The error after {shown} samples with one of them halved / doubled:",
        markdown.table(["", *machines], rows),
    ]


def _bold(name: str) -> str:
    return f"**{name}**" if name == OURS else f"*{name}*"


def _mean(figure: Figure) -> float:
    return 100 * mean(figure.mapes)


def _cell(figure: Figure) -> str:
    spread = 100 * stdev(figure.mapes) if len(figure.mapes) > 1 else 0.0
    return f"{_mean(figure):.1f} ± {spread:.1f}"
