"""`python -m benchmarks.machines`: leaves each type of machine out, prints the report, writes it where asked."""

from __future__ import annotations

from pathlib import Path
from time import process_time
from typing import Annotated

import numpy as np
import typer
from rich.markdown import Markdown

from backend.progress_bar import console
from benchmarks.harness.command import one_sentence_errors
from benchmarks.machines.leave_one_out import Figure, leave_one_out, rest_on_priors, whole_machines
from benchmarks.machines.machines_report import MachineSource, report
from benchmarks.machines.open_data import MeasuredMachine, gavel_machines, parvagpu_machines
from benchmarks.machines.rivals import ALONE, OURS
from predictor.machines.machine_predictor import MachinePredictor

_WIDTH = 160
_SHOWN = 30
_SOURCES = (
    (
        "Types of GPU",
        "Gavel: 26 training jobs alone and in pairs under MPS; both slowdowns of a pair are samples.",
        gavel_machines,
    ),
    (
        "Slices of a GPU",
        "ParvaGPU: eleven models at batch sizes of 1 to 256, two to five copies at once, on MIG slices of an A100. A "
        "model meets only itself, so that its two numbers are one.",
        parvagpu_machines,
    ),
)


def main(
    repeats: Annotated[int, typer.Option(help="Draws of samples, per machine and number of them.", min=1)] = 20,
    samples: Annotated[list[int] | None, typer.Option(help="Of the new machine, besides 30.", min=1)] = None,
    constants: Annotated[bool, typer.Option(help="Halve and double each constant.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the report to this file too.")] = None,
) -> None:
    """Predict slowdowns on a machine that is new from a few samples, by rivals; a few minutes."""
    screen = console(_WIDTH)
    counts = {count: None if count == _SHOWN else (OURS, ALONE) for count in (_SHOWN, *(samples or (10, 100)))}
    with one_sentence_errors("bench-machines", kept="nothing is written"):
        parts = []
        for title, data, read in _SOURCES:
            machines = read()
            figures: list[Figure] = []
            for new in machines:
                screen.print(f"new: {new}")
                figures += leave_one_out(machines, counts, repeats, [new])
            parts.append(MachineSource(title, data, figures, whole_machines(machines)))
        screen.print("constants")
        rested = list(rest_on_priors(gavel_machines(), _SHOWN, repeats)) if constants else []
        text = report(parts, rested, repeats, _SHOWN, costs(gavel_machines()))
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text)
    screen.print(Markdown(text))


def costs(machines: dict[str, MeasuredMachine]) -> dict[str, str]:
    """CPU time per operation, all machines' samples by turns, then predictions of them."""
    predictor = MachinePredictor()
    for name, machine in machines.items():
        predictor.add_machine(name, machine.peaks)
    found = [(name, sample) for name, machine in machines.items() for sample in machine.samples]
    order = np.random.default_rng(0).permutation(len(found))
    learning, predicting = [], []
    for i in order:
        name, (own, co_runners, slowdown) = found[i]
        began = process_time()
        predictor.learn_one(name, own, co_runners, slowdown)
        learning.append(1e6 * (process_time() - began))
    for i in order:
        name, (own, co_runners, _) = found[i]
        began = process_time()
        predictor.predict_one(name, own, co_runners)
        predicting.append(1e6 * (process_time() - began))
    return {
        f"{what}, {named}": f"{figure:.0f}"
        for what, spans in (("learn_one", learning), ("predict_one", predicting))
        for named, figure in zip(("p50", "mean", "p99"), (*_p50_mean_p99(spans),), strict=True)
    }


def _p50_mean_p99(spans: list[float]) -> tuple[float, float, float]:
    return float(np.median(spans)), float(np.mean(spans)), float(np.percentile(spans, 99))


if __name__ == "__main__":
    typer.run(main)
